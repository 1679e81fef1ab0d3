// What a query costs when many clients ask: they are there before anything is counted, and each asks anew as soon as it has its
// answer. pgbench would count their log-ins too, and 4,000 of it wait for the pool longer than they are served.

import { frontend } from "../../test/support/wire-frames.ts";
import { processorTime } from "../bench/process.ts";

/** Accounts that pgbench makes for each unit of its scale. */
const ACCOUNTS = 100_000;
/** Clients that log in at a time. */
const AT_A_TIME = 50;
/** The end of each answer: ReadyForQuery, idle. */
const READY = "Z\0\0\0\x05I";
/** ms in which the hot path is compiled, and everybody is asked for once. */
const WARMING = 3_000;

interface Door {
	readonly port: number;
	readonly pid: number;
	readonly user: string;
	readonly database: string;
}

/** Microseconds of the proxy's processor time for each query while so many clients ask for so many seconds. */
export async function costInCrowd(door: Door, clients: number, seconds: number): Promise<number> {
	const { port, pid, user, database } = door;
	const startup = frontend.startupMessage({ user, database });
	const sockets: Bun.Socket<undefined>[] = [];
	let answered = 0;
	let asking = false as boolean;
	const ask = (socket: Bun.Socket<undefined>) => {
		const aid = 1 + Math.floor(Math.random() * ACCOUNTS);
		socket.write(frontend.query(`SELECT abalance FROM pgbench_accounts WHERE aid = ${aid}`));
	};
	const one = () =>
		new Promise<void>((resolve, reject) => {
			Bun.connect({
				hostname: "127.0.0.1",
				port,
				socket: {
					open(socket) {
						sockets.push(socket as Bun.Socket<undefined>);
						socket.write(startup);
					},
					data(socket, chunk) {
						if (chunk.latin1Slice(chunk.length - READY.length, chunk.length) !== READY) return;
						if (!asking) return resolve();
						answered++;
						ask(socket as Bun.Socket<undefined>);
					},
					close: () => reject(new Error(`a client was closed, ${sockets.length} were open`)),
					connectError: (_, error) => reject(error),
				},
			}).catch(reject);
		});
	for (let left = clients; left > 0; left -= AT_A_TIME) {
		await Promise.all(Array.from({ length: Math.min(left, AT_A_TIME) }, one));
	}
	asking = true;
	for (const socket of sockets) ask(socket);
	await Bun.sleep(WARMING);
	const [before, from] = [answered, processorTime(pid)];
	await Bun.sleep(seconds * 1000);
	const cost = ((processorTime(pid) - from) / (answered - before)) * 1e6;
	asking = false;
	for (const socket of sockets) socket.terminate();
	return cost;
}
