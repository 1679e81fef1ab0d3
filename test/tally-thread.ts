// One of several threads that count the same names at once (tally.test.ts).

import { Tally } from "../src/tally.ts";

declare const self: Worker;

self.onmessage = ({
	data,
}: MessageEvent<{ memory: SharedArrayBuffer; names: string[]; limit: number; rounds: number }>) => {
	const tally = new Tally(data.memory);
	let most = 0;
	for (let round = 0; round < data.rounds; round++) {
		const name = data.names[round % data.names.length]!;
		if (!tally.add(name, data.limit)) continue;
		most = Math.max(most, tally.count(name));
		tally.remove(name);
	}
	self.postMessage(most);
};
