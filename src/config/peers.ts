// Other instances of the proxy behind one address: part of the one table (settings.ts), and what `[[peers]]` has to be. Called by load.ts.

import { joinKey } from "./locate.ts";
import type { Findings, ValueSource } from "./problem.ts";
import { integer, text, type Values } from "./setting.ts";

/** So many bits of a client's process id are the instance's (client/clients.ts). */
const MOST_PEERS = 63;

/** Of `[general]`. */
export const peering = {
	peer_id: integer({
		default: undefined,
		min: 1,
		max: MOST_PEERS,
		reloadable: false,
		text: "PgBouncer's: which of `[[peers]]` this instance is. With several instances behind one address a CancelRequest may come to another than its client: the client's key says to which of them it is passed on.",
	}),
};

export const peer = {
	peer_id: integer({
		required: true,
		default: 0,
		min: 1,
		max: MOST_PEERS,
		text: "The `peer_id` that the instance has in its own file.",
	}),
	host: text({
		required: true,
		default: "",
		text: "Host name or address by which this one instance is reached, or the folder of its Unix socket when it starts with `/` or `@`.",
	}),
	port: integer({ default: 6432, min: 1, max: 65535, text: "Its port." }),
};

/** An instance of the proxy behind the same address as this one, which is among them. */
export interface Peer {
	readonly peer_id: number;
	/** What starts with `/` or `@` is the folder of a Unix socket. */
	readonly host: string;
	readonly port: number;
}

/** An entry as it stands in the file, with its place there; one that lacks something has been reported. */
interface PeerRow {
	readonly at: string;
	readonly values: Partial<Values<typeof peer>>;
}

/** @param own `peer_id` of this instance */
export function checkPeers(
	rows: readonly PeerRow[],
	own: number | undefined,
	source: ValueSource,
	report: Findings,
): Peer[] {
	const places = new Map<number, string>();
	for (const { at, values } of rows) {
		const { peer_id } = values;
		if (peer_id === undefined) continue;
		const other = places.get(peer_id);
		if (other === undefined) places.set(peer_id, at);
		else report.problem(source, joinKey(at, "peer_id"), "value", String(peer_id), `another than that of ${other}`);
	}
	if (own === undefined && rows.length > 0)
		report.problem(source, "general.peer_id", "missing", "", "which of [[peers]] this instance is");
	if (own !== undefined && !places.has(own))
		report.problem(source, "general.peer_id", "value", String(own), "the peer_id of one of [[peers]]");
	return rows.flatMap(({ values: { peer_id, host, port = peer.port.default } }) =>
		peer_id === undefined || host === undefined ? [] : [{ peer_id, host, port }],
	);
}
