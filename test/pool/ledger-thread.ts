// A thread that takes and gives permits as fast as it can; see ledger.test.ts.

import { Ledger } from "../../src/pool/ledger.ts";

declare const self: Worker;

self.onmessage = ({
	data,
}: MessageEvent<{ memory: SharedArrayBuffer; limit: number; rounds: number; floor: number }>) => {
	const ledger = new Ledger(2, 4, data.memory);
	let most = 0;
	let got = 0;
	const names: number[] = [];
	for (let i = 0; i < data.rounds; i++) {
		names.push(ledger.nextStatement());
		if (!ledger.acquire(1, data.limit)) continue;
		got++;
		most = Math.max(most, ledger.used(1));
		// Both ways of giving back; the second may say no, and then the permit is still ours.
		if (i % 2 === 0 || !ledger.releaseAbove(1, data.floor)) ledger.release(1);
	}
	self.postMessage({ most, got, names });
};
