// Waiting for a condition instead of the clock. Used by all test support and by tests.

/** Polls until `condition` holds; throws naming `what` after `timeout` milliseconds. A condition that throws ends the wait. */
export async function until(
	condition: () => boolean | Promise<boolean>,
	what: string,
	timeout = 10_000,
): Promise<void> {
	const end = performance.now() + timeout;
	for (let pause = 1; ; pause = Math.min(pause * 2, 20)) {
		if (await condition()) return;
		if (performance.now() > end) throw new Error(`waited ${timeout} ms for ${what}`);
		await Bun.sleep(pause);
	}
}

/** `promise`, or an error naming `what` and the state that `seen` tells after `timeout` milliseconds. */
export async function within<T>(promise: Promise<T>, what: string, timeout = 10_000, seen?: () => string): Promise<T> {
	let timer: ReturnType<typeof setTimeout> | undefined;
	const late = new Promise<never>((_, reject) => {
		timer = setTimeout(
			() => reject(new Error(`waited ${timeout} ms for ${what}${seen ? `; ${seen()}` : ""}`)),
			timeout,
		);
	});
	try {
		return await Promise.race([promise, late]);
	} finally {
		clearTimeout(timer);
	}
}
