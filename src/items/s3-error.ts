/** What S3 said, for people. To a HEAD it says nothing but a status. */

/** What the SDK says where the answer has no body. */
const NOTHING = /^UnknownError$|^Unknown$/

const BY_STATUS: Readonly<Record<number, string>> = {
  301: 'the bucket is in another region: set AWS_REGION, or pass a client of that region',
  400: 'the request is refused: look at the region (AWS_REGION) and the credentials',
  403: 'access is denied: look at the credentials and their rights',
  404: 'there is no such object, or no such bucket',
}

export function s3StatusOf(error: unknown): number | undefined {
  if (typeof error !== 'object' || error === null || !('$metadata' in error)) return undefined
  const { $metadata: metadata } = error
  if (typeof metadata !== 'object' || metadata === null || !('httpStatusCode' in metadata)) return undefined
  return typeof metadata.httpStatusCode === 'number' ? metadata.httpStatusCode : undefined
}

/** Its own words, else what its status means; of another region both. */
export function s3ProblemOf(error: unknown): string {
  const status = s3StatusOf(error)
  const usual = status === undefined ? undefined : BY_STATUS[status]
  const said = error instanceof Error ? error.message : String(error)
  if (usual !== undefined && NOTHING.test(said)) return usual
  return usual !== undefined && status === 301 ? `${said} (${usual})` : said
}
