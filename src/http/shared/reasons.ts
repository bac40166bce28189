/**
 * What each error of FlowStone means to whoever asks over HTTP. Handlers say some of it in words of
 * their own. A code that is not here does not compile.
 */
import type { ErrorCode } from '../../../streams/error-codes.ts'
import type { ProblemReason } from './problem.ts'

/** Its sender is answered by the reason that the error itself has. */
type Apart = 'signal_rejected'

export const REASONS: Readonly<Record<Exclude<ErrorCode, Apart>, ProblemReason>> = {
  // What the caller gave.
  invalid: 'invalid_input',
  conflict: 'conflict',
  not_found: 'unknown_id',
  pruned: 'pruned',
  unknown_asset: 'unknown_asset',
  unknown_pipeline: 'unknown_asset',
  missing_input: 'invalid_input',
  missing_upstream: 'invalid_input',
  rate_limited: 'rate_limited',
  // The state of a thing does not allow it.
  cancelled: 'conflict',
  not_redrivable: 'conflict',
  not_retryable: 'conflict',
  not_adoptable: 'conflict',
  not_closed: 'conflict',
  not_started: 'conflict',
  run_open: 'conflict',
  not_empty: 'conflict',
  // How it was is not known.
  no_snapshot: 'not_kept',
  read_only: 'not_kept',
  // The same request may succeed in a while.
  timeout: 'unavailable',
  too_many_early_signals: 'unavailable',
  unreachable: 'unavailable',
  unavailable: 'unavailable',
  closed: 'unavailable',
  storage_full: 'unavailable',
  too_many_readers: 'unavailable',
  no_namespace: 'unavailable',
  no_engine: 'unavailable',
  unreadable: 'unavailable',
  state_behind: 'unavailable',
  importing: 'unavailable',
  limits: 'unavailable',
  late: 'unavailable',
  pending: 'unavailable',
  // What is stored is not whole.
  missing_value: 'damaged',
  missing_items: 'damaged',
  missing_result: 'damaged',
  damaged_value: 'damaged',
  undecodable: 'damaged',
  bad_state: 'damaged',
  bad_fact: 'damaged',
  bad_task: 'damaged',
  unknown_fact: 'damaged',
  // A fault of this side: of its set-up, its server, or FlowStone itself.
  bad_answer: 'internal',
  unknown_io: 'internal',
  load_failed: 'internal',
  no_gate_secret: 'internal',
  unknown_gate_secret: 'internal',
  user_code: 'internal',
  unauthorized: 'internal',
  denied: 'internal',
  refused: 'internal',
  no_jetstream: 'internal',
  server_too_old: 'internal',
  two_domains: 'internal',
  jetstream: 'internal',
  protocol: 'internal',
  port_in_use: 'internal',
  listen_failed: 'internal',
  no_console: 'internal',
  server_ended: 'internal',
  server_locked: 'internal',
  server_not_found: 'internal',
  server_start_failed: 'internal',
  server_unusable: 'internal',
  no_stream: 'internal',
  topology: 'internal',
  bad_topology: 'internal',
  old_format: 'internal',
  newer_version: 'internal',
  log_changed: 'internal',
  history_lost: 'internal',
  other_version: 'internal',
  bad_archive: 'internal',
  archive_failed: 'internal',
  internal: 'internal',
  returned: 'internal',
  paused: 'internal',
  limited: 'internal',
  superseded: 'internal',
  fenced: 'internal',
  claim_lost: 'internal',
  checkpoint: 'internal',
  reader_stopped: 'internal',
  // How a run or an instance ended: stored, and no answer to a request.
  run_skipped: 'internal',
  terminal: 'internal',
  retryable: 'internal',
  worker_lost: 'internal',
  scatter_failed: 'internal',
  threshold_passed: 'internal',
  keys_changed: 'internal',
  gate_cancelled: 'internal',
  child_failed: 'internal',
  wait_cycle: 'internal',
  not_run: 'internal',
  items_failed: 'internal',
  source_failed: 'internal',
  poison: 'internal',
  slot_lost: 'internal',
}

/** `internal` for a code that somebody else has made. */
export function reasonOf(code: string): ProblemReason {
  return Object.hasOwn(REASONS, code) ? REASONS[code as keyof typeof REASONS] : 'internal'
}
