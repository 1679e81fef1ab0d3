// What a promise is rejected with. `expect(…).rejects` of Bun 1.4.5 waits in an event loop of its own, in which what a child has written
// may stay unread until something else wakes it: a test that waits for the proxy's log afterwards waited in vain now and then.

import { expect } from "bun:test";

/** Waits until `promise` is rejected, with a message that has, or matches, `expected`. @param label said when it is not */
export async function rejects(promise: Promise<unknown>, expected: string | RegExp = "", label = ""): Promise<void> {
	const outcome = await promise.then(
		(value) => ({ value }),
		(error: unknown) => ({ error }),
	);
	if (!("error" in outcome)) throw new Error(`${label} was not refused, but came to ${String(outcome.value)}`);
	const said = outcome.error instanceof Error ? outcome.error.message : String(outcome.error);
	const text = label === "" ? said : `${label}: ${said}`;
	if (typeof expected === "string") expect(text).toContain(expected);
	else expect(text).toMatch(expected);
}
