// What a query costs when many clients ask: they are there before anything is counted, and each asks anew as soon as it has its
// answer. pgbench would count their log-ins too, and 4,000 of it wait for the pool longer than they are served.

import { frontend } from "../../test/support/wire-frames.ts";
import { type Door, openClients } from "../bench/clients.ts";
import { processorTime } from "../bench/process.ts";

/** Accounts that pgbench makes for each unit of its scale. */
const ACCOUNTS = 100_000;
/** ms in which the hot path is compiled, and everybody is asked for once. */
const WARMING = 3_000;

/** Microseconds of the proxy's processor time for each query while so many clients ask for so many seconds. @param pid the proxy's */
export async function costInCrowd(door: Door & { pid: number }, clients: number, seconds: number): Promise<number> {
	const { pid } = door;
	let answered = 0;
	let asking = true as boolean;
	const ask = (socket: Bun.Socket<undefined>) => {
		const aid = 1 + Math.floor(Math.random() * ACCOUNTS);
		socket.write(frontend.query(`SELECT abalance FROM pgbench_accounts WHERE aid = ${aid}`));
	};
	const sockets = await openClients(door, clients, (socket) => {
		if (!asking) return;
		answered++;
		ask(socket);
	});
	for (const socket of sockets) ask(socket);
	await Bun.sleep(WARMING);
	const [before, from] = [answered, processorTime(pid)];
	await Bun.sleep(seconds * 1000);
	const cost = ((processorTime(pid) - from) / (answered - before)) * 1e6;
	asking = false;
	for (const socket of sockets) socket.terminate();
	return cost;
}
