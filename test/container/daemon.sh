#!/usr/bin/env bash
# A Docker daemon for `npm run test:container`, where there is none and nothing may be installed. Debian only, as root.
#
#   eval "$(test/container/daemon.sh start FOLDER)"    fetches what is missing into FOLDER, starts it, sets the environment
#   npm run test:container
#   test/container/daemon.sh stop FOLDER
#
# The packages are Debian's own, from the mirror that this machine uses, checked by apt, unpacked and used by path. The
# daemon does not touch this machine's iptables: ports are published on 127.0.0.1 by its proxy, and containers reach each
# other but nothing outside. (It needs iptables all the same: inside of a container's own network, names are resolved
# with it.) The bridge docker0 is removed again at the end. One at a time: they would share that bridge.
set -euo pipefail

action=${1:?start or stop}
mkdir -p "${2:?folder}"
dir=$(cd "$2" && pwd)
programs=$dir/packages/tree/usr/sbin:$dir/packages/tree/usr/bin:$dir/packages/tree/bin

fetch() {
  local keyring uri release
  keyring=$(ls /usr/share/keyrings/debian-archive-keyring.*gpg | head -1)
  uri=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' | awk '$1 == "Debian" && $2 == "Debian" {print $3; exit}')
  [ -n "$uri" ] || uri=$(awk '/^URIs:/ && !/security/ {print $2; exit}' /etc/apt/sources.list.d/*.sources)
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  mkdir -p "$dir/packages/lists/partial" "$dir/packages/cache/archives/partial"
  cd "$dir/packages"
  # The daemon must fit this system's libc. Compose is one static program, and Debian 12 has only version 1 of it.
  printf "deb [signed-by=$keyring target=Packages] $uri %s main\n" "$release" trixie | sort -u >sources.list
  cat >apt.conf <<END
Dir::Etc::sourcelist "$PWD/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$PWD/lists";
Dir::Cache "$PWD/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
END
  apt-get -c apt.conf -qq update
  local packages=(docker.io containerd runc busybox-static iptables libip4tc2 libip6tc2 libxtables12 libnfnetlink0 libnftnl11
    libnetfilter-conntrack3)
  apt-get -c apt.conf -qq download "${packages[@]/%//$release}" docker-compose/trixie
  for package in *.deb; do dpkg-deb -x "$package" tree; done
  for name in iptables ip6tables; do ln -sf xtables-nft-multi "tree/usr/sbin/$name"; done
}

start() {
  [ -x "$dir/packages/tree/usr/sbin/dockerd" ] || (fetch) >&2
  local libraries
  libraries=$(ls -d "$dir"/packages/tree/usr/lib/*-linux-gnu)
  LD_LIBRARY_PATH=$libraries XTABLES_LIBDIR=$libraries/xtables PATH=$programs:$PATH \
    setsid dockerd --data-root "$dir/root" --exec-root "$dir/exec" -H "unix://$dir/docker.sock" --pidfile "$dir/pid" \
    --ip 127.0.0.1 --iptables=false --ip6tables=false >"$dir/log" 2>&1 </dev/null &
  for _ in $(seq 100); do
    if DOCKER_HOST=unix://$dir/docker.sock PATH=$programs:$PATH docker info >/dev/null 2>&1; then
      echo "export PATH=$programs:\$PATH DOCKER_HOST=unix://$dir/docker.sock"
      # The reaper of testcontainers is an image of its own, which cannot be pulled where none can.
      echo "export TESTCONTAINERS_RYUK_DISABLED=true TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1"
      return
    fi
    sleep 0.2
  done
  tail -20 "$dir/log" >&2
  return 1
}

stop() {
  local pid
  pid=$(cat "$dir/pid")
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
  ip link delete docker0 2>/dev/null || true
}

case $action in
  start) start ;;
  stop) stop ;;
  *) echo "start or stop, not $action" >&2 && exit 2 ;;
esac
