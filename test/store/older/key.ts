/** The chain key of the stores that lie here: of a test, and no secret. */
export const OLDER_KEY = Buffer.alloc(32, 'older');
