/** What is told to the reader of the page, in one line: what is wrong, and what to do. */
export class PageError extends Error {}

/** Throw unless a condition holds. */
export function need(condition: unknown, reason: string): asserts condition {
  if (!condition) throw new PageError(reason);
}

/** An error in words. */
export function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
