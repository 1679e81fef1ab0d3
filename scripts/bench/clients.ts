// Thousands of clients that keep nothing but their sockets, so that the process that has them stays small.

import { frontend } from "../../test/support/wire-frames.ts";

/** The end of each answer: ReadyForQuery, idle. */
const READY = "Z\0\0\0\x05I";
/** Clients that log in at a time. */
const AT_A_TIME = 50;

export interface Door {
	readonly port: number;
	readonly user: string;
	readonly database: string;
}

/** Opens so many and logs them in. @param onAnswer called with each answer after that */
export async function openClients(
	{ port, user, database }: Door,
	howMany: number,
	onAnswer: (socket: Bun.Socket<undefined>) => void = () => {},
): Promise<Bun.Socket<undefined>[]> {
	const startup = frontend.startupMessage({ user, database });
	const sockets: Bun.Socket<undefined>[] = [];
	const one = () =>
		new Promise<void>((resolve, reject) => {
			let tail = Buffer.alloc(0);
			let isIn = false;
			Bun.connect({
				hostname: "127.0.0.1",
				port,
				socket: {
					open(socket) {
						sockets.push(socket as Bun.Socket<undefined>);
						socket.write(startup);
					},
					data(socket, chunk) {
						tail = Buffer.concat([tail, chunk]).subarray(-READY.length);
						if (tail.toString("latin1") !== READY) return;
						if (isIn) onAnswer(socket as Bun.Socket<undefined>);
						isIn = true;
						resolve();
					},
					close: () => reject(new Error(`a client was closed, ${sockets.length} were open`)),
					connectError: (_, error) => reject(error),
				},
			}).catch(reject);
		});
	for (let left = howMany; left > 0; left -= AT_A_TIME) {
		await Promise.all(Array.from({ length: Math.min(left, AT_A_TIME) }, one));
	}
	return sockets;
}
