// How many clients there may be: in all, of a user, of a database, from an address. A client has its seat from the end of its log-in on,
// and its Stream gives that back with the descriptor, once, however it ends; a client that moves keeps it. Counted in shared memory;
// one for each thread. A reload that lowers a limit unseats nobody.

import type { General } from "../config/settings.ts";
import type { ClusterSpec } from "../config/snapshot.ts";
import { PgError, TOO_MANY_CONNECTIONS } from "../errors.ts";
import type { LogFields } from "../log.ts";
import type { Descriptors } from "../net/descriptors.ts";
import { type OnceAMinute, timesText } from "../once-a-minute.ts";
import type { Tally } from "../tally.ts";

/** Whose seat it is. */
export interface Guest {
	readonly user: string;
	readonly database: string;
	/** `address:port`, or `unix`. */
	readonly address: string;
}

interface Limit {
	/** What is counted, in the Tally. */
	readonly name: string;
	readonly most: number;
	readonly setting: string;
	readonly message: string;
}

/** What a Stream that has a seat gives back. */
export class Seat {
	private readonly seats: Seats;
	private readonly guest: Guest;

	constructor(seats: Seats, guest: Guest) {
		this.seats = seats;
		this.guest = guest;
	}

	free(): void {
		this.seats.leave(this.guest);
	}
}

/** Its thread. */
export interface SeatsContext {
	readonly general: Pick<General, "max_client_connections" | "max_client_connections_per_address">;
	readonly log: { warn(text: string, fields: LogFields): void };
	readonly ledger: { readonly tally: Tally; refusals(kind: number): OnceAMinute };
}

export class Seats {
	private readonly context: SeatsContext;
	private readonly descriptors: Descriptors;

	constructor(context: SeatsContext, descriptors: Descriptors) {
		this.context = context;
		this.descriptors = descriptors;
	}

	/**
	 * Why a client that has not said its password yet need not: there will be no seat for it. Says nothing of its user or database,
	 * which are nobody's business before that. @param time `now()`
	 */
	refusal(guest: Guest, time: number): PgError | null {
		const { tally } = this.context.ledger;
		const limits = [this.ofAddress(guest), this.ofAll];
		const full = limits.findIndex(({ name, most }) => most < tally.count(name) + 1);
		return full < 0 ? null : this.refuse(limits[full]!, full, guest, time);
	}

	/**
	 * Takes a seat for a client that has logged in.
	 * @param spec what it has logged in to
	 * @param time `now()`
	 * @returns what its Stream gives back instead of the descriptor alone, or why there is none
	 */
	take(guest: Guest, spec: ClusterSpec, time: number): Seat | PgError {
		const { tally } = this.context.ledger;
		const limits = [this.ofAddress(guest), this.ofAll, ofUser(guest, spec), ofDatabase(guest, spec)];
		const full = limits.findIndex(({ name, most }) => !tally.add(name, most));
		if (full < 0) return new Seat(this, guest);
		for (const { name } of limits.slice(0, full)) tally.remove(name);
		return this.refuse(limits[full]!, full, guest, time);
	}

	/** The seat of a client that comes from another thread. */
	received({ user, database, address }: Guest): Seat {
		return new Seat(this, { user, database, address });
	}

	/** Called by a Seat only. */
	leave(guest: Guest): void {
		const { tally } = this.context.ledger;
		this.descriptors.free();
		for (const name of [hostName(guest), ALL, userName(guest), databaseName(guest)]) tally.remove(name);
	}

	private get ofAll(): Limit {
		const { max_client_connections: most } = this.context.general;
		return { name: ALL, most, setting: "max_client_connections", message: "sorry, too many clients already" };
	}

	private ofAddress(guest: Guest): Limit {
		const host = networkOf(guest.address);
		// All of the machine's programs have the Unix socket's one address: a limit would be one on all of them together.
		const most = host === "unix" ? Number.POSITIVE_INFINITY : this.context.general.max_client_connections_per_address;
		const setting = "max_client_connections_per_address";
		return { name: hostName(guest), most, setting, message: `too many connections from address "${host}"` };
	}

	/** Logs it, once a minute for each kind of limit. @param kind place of `limit` among the four */
	private refuse({ name, most, setting, message }: Limit, kind: number, guest: Guest, time: number): PgError {
		const { ledger, log, general } = this.context;
		const { user, database, address } = guest;
		const times = ledger.refusals(kind).due(time);
		if (times > 0) {
			const all = `${ledger.tally.count(ALL)} clients in all`;
			const most_all = general.max_client_connections;
			const numbers = `${ledger.tally.count(name)} of ${most} (${setting})`;
			const rest = kind === 1 ? "" : `, ${all}${most_all === Number.MAX_SAFE_INTEGER ? "" : ` of ${most_all}`}`;
			const whose = { user, database, address };
			log.warn(
				`${message}: ${numbers}${rest}; refused user "${user}" and database "${database}" [${address}]${timesText(times)}`,
				whose,
			);
		}
		return new PgError("FATAL", TOO_MANY_CONNECTIONS, message, `${setting} is ${most}.`);
	}
}

/** The name of all clients in the Tally; those of others have a letter in front. */
const ALL = "";

function hostName({ address }: Guest): string {
	return `a${networkOf(address)}`;
}

function userName({ user }: Guest): string {
	return `u${user}`;
}

function databaseName({ database }: Guest): string {
	return `d${database}`;
}

function ofUser(guest: Guest, { user }: ClusterSpec): Limit {
	const most = user.max_client_connections ?? Number.POSITIVE_INFINITY;
	const setting = `max_client_connections of the user`;
	return { name: userName(guest), most, setting, message: `too many connections for role "${guest.user}"` };
}

function ofDatabase(guest: Guest, { max_client_connections }: ClusterSpec): Limit {
	const most = max_client_connections ?? Number.POSITIVE_INFINITY;
	const setting = "max_client_connections of the database";
	return { name: databaseName(guest), most, setting, message: `too many connections for database "${guest.database}"` };
}

/**
 * Who is behind `address:port`: of IPv6 the first 64 bits, since who has one of these addresses has them all (RFC 4291, "Interface
 * Identifiers").
 */
export function networkOf(address: string): string {
	const port = address.lastIndexOf(":");
	const host = port < 0 ? address : address.slice(0, port);
	if (!host.includes(":")) return host;
	const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(host);
	if (mapped !== null) return mapped[1]!;
	const [head = "", tail] = host.split("::");
	const [first, last] = [head, tail ?? ""].map((part) => (part === "" ? [] : part.split(":"))) as [string[], string[]];
	const zeros = Array.from({ length: Math.max(0, 8 - first.length - last.length) }, () => "0");
	return `${[...first, ...(tail === undefined ? [] : zeros), ...last].slice(0, 4).join(":")}::/64`;
}
