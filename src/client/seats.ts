// How many clients there may be: in all, of a user, of a database, from an address. A client has its seat from the end of its log-in on,
// and its Stream gives that back with the descriptor, once, however it ends; a client that moves keeps it. Counted in shared memory;
// one for each thread. A reload that lowers a limit unseats nobody.

import type { limits } from "../config/limits.ts";
import { MAX } from "../config/setting.ts";
import type { General } from "../config/settings.ts";
import type { ClusterSpec } from "../config/snapshot.ts";
import { PgError, TOO_MANY_CONNECTIONS } from "../errors.ts";
import type { LogFields } from "../log.ts";
import type { Descriptors } from "../net/descriptors.ts";
import { Failures } from "../net/failures.ts";
import { hostOf } from "../net/names.ts";
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

/** Kinds of limits: each has its own line in the log once a minute. */
const enum Refused {
	/** Places of the limits in `take`. */
	Address,
	All,
	User,
	Database,
	Login,
	Failed,
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
	readonly general: Pick<General, keyof typeof limits>;
	readonly log: { warn(text: string, fields?: LogFields): void };
	readonly ledger: { readonly tally: Tally; readonly failures: Int32Array; refusals(kind: number): OnceAMinute };
}

export class Seats {
	private readonly context: SeatsContext;
	private readonly descriptors: Descriptors;
	private readonly failures: Failures;

	constructor(context: SeatsContext, descriptors: Descriptors) {
		this.context = context;
		this.descriptors = descriptors;
		this.failures = new Failures(context.ledger.failures);
	}

	// ---- before it has logged in -----------------------------------------------------------------------------------

	/** Counts one more connection that has not logged in. @returns whether it may go on, and counts until `endLogin` */
	beginLogin(): boolean {
		return this.context.ledger.tally.add(LOGINS, this.context.general.max_client_logins);
	}

	endLogin(): void {
		this.context.ledger.tally.remove(LOGINS);
	}

	/** What one is told that `beginLogin` has turned away. */
	crowded(guest: Guest, time: number): PgError {
		const setting = "max_client_logins";
		const most = this.context.general.max_client_logins;
		return this.refuse({ name: LOGINS, most, setting, message: ALL_TAKEN }, Refused.Login, guest, time);
	}

	/** Why a client need not say its password: too many from there have said a wrong one. */
	barred(guest: Guest, time: number): PgError | null {
		const { max_failed_logins: most, failed_login_pause } = this.context.general;
		if (most === MAX) return null;
		const host = networkOf(guest.address);
		const failed = this.failures.count(host, time, failed_login_pause);
		if (failed < most) return null;
		const message = `too many failed log-ins from address "${host}"`;
		const numbers = `${failed} of ${most} (max_failed_logins)`;
		this.say(Refused.Failed, `${message}: ${numbers}, for ${failed_login_pause / 1000} s from the last`, guest, time);
		return new PgError("FATAL", "28000", message, undefined, "Try again later.");
	}

	/** Its password was wrong, or it has none. @returns ms after which it is to be told */
	failed({ address }: Guest, time: number): number {
		const { failed_login_pause, failed_login_delay } = this.context.general;
		const host = networkOf(address);
		if (host !== UNIX) this.failures.add(host, time, failed_login_pause);
		return failed_login_delay;
	}

	/** It has said the right one. */
	proven({ address }: Guest, time: number): void {
		this.failures.clear(networkOf(address), time);
	}

	// ---- after -----------------------------------------------------------------------------------------------------

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
		return { name: ALL, most, setting: "max_client_connections", message: ALL_TAKEN };
	}

	private ofAddress(guest: Guest): Limit {
		const host = networkOf(guest.address);
		// All of the machine's programs have the Unix socket's one address: a limit would be one on all of them together.
		const most = host === UNIX ? Number.POSITIVE_INFINITY : this.context.general.max_client_connections_per_address;
		const setting = "max_client_connections_per_address";
		return { name: hostName(guest), most, setting, message: `too many connections from address "${host}"` };
	}

	/** Logs it, once a minute for each kind of limit. @param kind of `limit` */
	private refuse({ name, most, setting, message }: Limit, kind: Refused, guest: Guest, time: number): PgError {
		const { ledger, general } = this.context;
		const total = general.max_client_connections;
		const all = `${ledger.tally.count(ALL)} clients in all${total === MAX ? "" : ` of ${total}`}`;
		const numbers = `${ledger.tally.count(name)} of ${most} (${setting})`;
		this.say(kind, `${message}: ${kind === Refused.All ? numbers : `${numbers}, ${all}`}`, guest, time);
		return new PgError("FATAL", TOO_MANY_CONNECTIONS, message, `${setting} is ${most}.`);
	}

	private say(kind: Refused, text: string, { user, database, address }: Guest, time: number): void {
		const { ledger, log } = this.context;
		const times = ledger.refusals(kind).due(time);
		if (times === 0) return;
		const whose = user === "" ? "" : `; refused user "${user}" and database "${database}"`;
		log.warn(`${text}${whose} [${address}]${timesText(times)}`, { user, database, address });
	}
}

/** The names of all clients, and of all who log in, in the Tally; others have a letter in front of something. */
const ALL = "";
const LOGINS = "login";
/** The address of all clients of the Unix socket. */
const UNIX = "unix";
const ALL_TAKEN = "sorry, too many clients already";

function hostName({ address }: Guest): string {
	return `a${networkOf(address)}`;
}

/** As many clients as a user has in a database, or more: those of the user, or of the database, whichever are fewer. */
export function clientsOf(tally: Tally, user: string, database: string): number {
	return Math.min(tally.count(userName({ user })), tally.count(databaseName({ database })));
}

function userName({ user }: Pick<Guest, "user">): string {
	return `u${user}`;
}

function databaseName({ database }: Pick<Guest, "database">): string {
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
	const host = hostOf(address);
	if (!host.includes(":")) return host;
	const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(host);
	if (mapped !== null) return mapped[1]!;
	const [head = "", tail] = host.split("::");
	const [first, last] = [head, tail ?? ""].map((part) => (part === "" ? [] : part.split(":"))) as [string[], string[]];
	const zeros = Array.from({ length: Math.max(0, 8 - first.length - last.length) }, () => "0");
	return `${[...first, ...(tail === undefined ? [] : zeros), ...last].slice(0, 4).join(":")}::/64`;
}
