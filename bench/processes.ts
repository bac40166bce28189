/** What the system knows about a process. Linux only: elsewhere these are NaN. */
import { readFileSync } from 'node:fs'

/** Linux tells it in hundredths of a second. */
const TICK_MS = 10

/** Processor time that it has used so far, in milliseconds. */
export function cpuMsOf(pid: number): number {
  const fields = procFile(pid, 'stat').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS
}

/** Memory that it holds now, in bytes. */
export function rssOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(procFile(pid, 'status'))?.[1]) * 1024
}

/** The most memory that it ever held, in bytes. */
export function peakRssOf(pid: number): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(procFile(pid, 'status'))?.[1]) * 1024
}

function procFile(pid: number, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8')
  } catch {
    return ''
  }
}
