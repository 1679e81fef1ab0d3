// The time, read once per janitor tick and once per socket event that needs it, never once per message.
// Everything that measures a duration uses milliseconds of one clock that all threads share.

/** A property of `performance` that never changes and costs a call to read. */
const origin = performance.timeOrigin;

/** Milliseconds since the epoch with microseconds behind the point; comparable between threads, unlike `performance.now()`. */
export function now(): number {
	return origin + performance.now();
}
