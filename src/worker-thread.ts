// A worker thread's entry: makes a Worker of the `setup` message, then hands messages between it and the main thread.

import type { FromWorker, ToWorker } from "./messages.ts";
import { Worker } from "./worker.ts";

declare const self: {
	onmessage: ((event: { data: ToWorker }) => void) | null;
	postMessage(message: FromWorker): void;
};

let worker: Worker | null = null;

self.onmessage = ({ data }) => {
	if (data.type !== "setup") {
		worker?.onMessage(data);
		return;
	}
	worker = new Worker(data.setup, (message) => self.postMessage(message));
	try {
		worker.start(data.setup.workers > 1);
	} catch (error) {
		self.postMessage({ type: "failed", reason: error instanceof Error ? error.message : String(error) });
	}
};
