// A process that is to be taken over, played by a thread: who takes over waits for it, and hears nobody else meanwhile. See
// takeover.test.ts.

import { Contain } from "../../src/contain.ts";
import { descriptor } from "../../src/net/options.ts";
import { sendDescriptors } from "../../src/net/passing.ts";
import { type Predecessor, TakeoverListener } from "../../src/net/takeover.ts";
import { listenUnix } from "../../src/net/unix.ts";

declare const self: Worker;

export interface Part {
	readonly path: string;
	readonly where: { readonly host: string; readonly port: number };
	/** What it hands over. */
	readonly sockets: readonly number[];
	/** What it says to each line, in place of what it should; "": it hangs up. */
	readonly says?: readonly string[];
}

const CONTAIN = new Contain(
	(error) => self.postMessage(String(error)),
	() => {},
);

self.onmessage = async ({ data: { path, where, sockets, says } }: MessageEvent<Part>) => {
	if (says === undefined) {
		const of: Predecessor = {
			offer: () => ({ tcp: sockets, unix: null }),
			paused: () => "{}",
			onTakenOver: (pid) => self.postMessage(`taken over by ${pid}`),
			refused: (why) => self.postMessage(`refused: ${why}`),
		};
		await new TakeoverListener(where, of, CONTAIN, 60_000).listen(path);
	} else {
		const answers = [...says];
		const listener = await listenUnix(path, 0o600, () => listener.stop(), {
			data(socket) {
				const answer = answers.shift() ?? "";
				if (answer === "") socket.end();
				else sendDescriptors(descriptor(socket), answer, sockets);
			},
		});
	}
	self.postMessage("listens");
};
