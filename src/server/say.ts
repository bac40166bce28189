/**
 * One line for the person in front of the screen. On stderr, because stdout may be read by a
 * program.
 */
export function say(line: string): void {
  process.stderr.write(`flowstone: ${line}\n`)
}
