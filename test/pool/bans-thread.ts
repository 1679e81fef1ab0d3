// A thread whose checks of one server fail and pass as fast as it can; see bans.test.ts.

import type { ClusterSpec } from "../../src/config/snapshot.ts";
import { createLog } from "../../src/log.ts";
import { Bans } from "../../src/pool/bans.ts";
import { Ban, Vitals } from "../../src/pool/vitals.ts";

declare const self: Worker;

export interface Order {
	readonly memory: SharedArrayBuffer;
	readonly slots: number;
	/** Its first word: not 0 when it is enough. */
	readonly stop: SharedArrayBuffer;
	readonly general: ConstructorParameters<typeof Bans>[2]["general"];
	readonly clusters: readonly ClusterSpec[];
	readonly known: ReadonlyMap<string, number>;
	/** The server that it checks. */
	readonly slot: number;
}

self.onmessage = ({ data }: MessageEvent<Order>) => {
	const { general, clusters } = data;
	const vitals = new Vitals(data.slots, data.memory);
	const bans = new Bans(vitals, createLog("text", "off"), { general, clusters }, data.known);
	const stop = new Int32Array(data.stop);
	let time = 1;
	let rounds = 0;
	self.postMessage("begun");
	while (Atomics.load(stop, 0) === 0) {
		// A day later each time: it is held for nothing it did before.
		time += 86_400_000;
		bans.failed(data.slot, Ban.Unhealthy, "no answer", time);
		bans.passed(data.slot, time);
		rounds++;
	}
	self.postMessage(rounds);
};
