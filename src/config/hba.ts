// The list `[[hba]]`: which of its entries a log-in meets. `meets` alone decides that, for login/proof.ts and for
// `configcheck --login`. What may stand in the file is in hba-list.ts. PostgreSQL docs, "The pg_hba.conf File".

import { isIP } from "node:net";
import { matchesPattern } from "./hba-pattern.ts";
import type { General } from "./settings.ts";

export const hbaTypes = ["local", "host", "hostssl", "hostnossl"] as const;
export const hbaMethods = ["trust", "reject", "scram-sha-256", "md5", "password", "cert", "peer"] as const;

/** An address; one of IPv4 is that also where IPv6 has it mapped (::ffff:10.0.0.1). */
interface Address {
	readonly family: 4 | 6;
	readonly number: bigint;
}

/** All addresses of a family that begin with the same bits. */
export interface Network {
	readonly family: 4 | 6;
	/** How many bits, and what they are as a number. */
	readonly bits: number;
	readonly prefix: bigint;
}

/** Databases or users of an entry: `all`, `sameuser` (a database of the user's name), by their names, or by what these match. */
export interface HbaNames {
	readonly all: boolean;
	readonly sameuser: boolean;
	readonly names: readonly string[];
	/** Regular expressions, without the slash. */
	readonly patterns?: readonly string[];
}

/** Plain data, which goes to the workers. */
export interface HbaEntry {
	readonly type: (typeof hbaTypes)[number];
	readonly databases: HbaNames;
	readonly users: HbaNames;
	/** Null: whatever the address is. */
	readonly networks: readonly Network[] | null;
	readonly method: (typeof hbaMethods)[number];
	/** File, line and number, for people. */
	readonly place: string;
	/** As a line of pg_hba.conf. */
	readonly text: string;
}

/** What is known of a client when it has said who it is. */
export interface HbaLogin {
	readonly user: string;
	readonly database: string;
	/** IP address, or `LOCAL`. */
	readonly host: string;
	readonly isEncrypted: boolean;
}

/** In the place of the address of a client that comes by the Unix socket. */
export const LOCAL = "local";

/** The first entry that fits; null: none does. Nobody is asked whether there is such a user. */
export function meets(list: readonly HbaEntry[], { user, database, host, isEncrypted }: HbaLogin): HbaEntry | null {
	const address = host === LOCAL ? null : readAddress(host);
	const kinds: readonly string[] = ["host", isEncrypted ? "hostssl" : "hostnossl"];
	const comesBy = ({ type, networks }: HbaEntry) => {
		if (host === LOCAL) return type === "local";
		// Not even `all` is the address of a client that was gone before it had one.
		if (address === null || !kinds.includes(type)) return false;
		return networks === null || networks.some((network) => holds(network, address));
	};
	const isAmong = ({ all, sameuser, names, patterns = [] }: HbaNames, name: string) =>
		all ||
		(sameuser && name === user) ||
		names.includes(name) ||
		patterns.some((pattern) => matchesPattern(pattern, name));
	return (
		list.find((entry) => comesBy(entry) && isAmong(entry.databases, database) && isAmong(entry.users, user)) ?? null
	);
}

/** Why a log-in is refused by what it `meets`, in PostgreSQL's words; null: it may go on. */
export function refusedBy(entry: HbaEntry | null, { user, database, host, isEncrypted }: HbaLogin): string | null {
	if (entry !== null && entry.method !== "reject") return null;
	const by = entry === null ? "no [[hba]] entry for" : "[[hba]] rejects connection for";
	const where = host === LOCAL ? "[local]" : host;
	const how = isEncrypted ? "SSL encryption" : "no encryption";
	return `${by} host "${where}", user "${user}", database "${database}", ${how}`;
}

/** Of a Snapshot. */
interface Deciding {
	readonly hba: readonly HbaEntry[];
	readonly general: Pick<General, "auth_type" | "tls_certificate" | "tls_client_required">;
	readonly admin: { readonly name: string; readonly user: string };
}

interface Explanation {
	readonly text: string;
	readonly isRefused: boolean;
}

/** For `configcheck --login`: what decides about a log-in, as a line, and whether it is refused by that. */
export function explainLogin({ hba, general, admin }: Deciding, login: HbaLogin): Explanation {
	const { auth_type, tls_certificate, tls_client_required } = general;
	if (tls_client_required && !login.isEncrypted && login.host !== LOCAL)
		return { text: "only TLS connections are allowed (tls_client_required)", isRefused: true };
	if (login.isEncrypted && tls_certificate === undefined)
		return { text: "there is no TLS without tls_certificate", isRefused: true };
	if (hba.length === 0) return { text: `there is no [[hba]]: auth_type = "${auth_type}" decides`, isRefused: false };
	const entry = meets(hba, login);
	const refusal = refusedBy(entry, login);
	if (entry === null) return { text: refusal!, isRefused: true };
	const isAsked = admin.name === login.database && admin.user === login.user && /trust|cert/.test(entry.method);
	let more = isAsked ? " (the admin database asks for its password)" : "";
	if (entry.method === "peer") more = ` (for the system's user ${JSON.stringify(login.user)} alone)`;
	return { text: `${entry.place}: ${entry.text}${more}`, isRefused: refusal !== null };
}

function holds({ family, bits, prefix }: Network, address: Address): boolean {
	return family === address.family && address.number >> BigInt(widthOf(family) - bits) === prefix;
}

function widthOf(family: 4 | 6): number {
	return family === 4 ? 32 : 128;
}

/** Null: it is none. */
function readAddress(text: string): Address | null {
	// The interface by which a link-local address is reached is no part of it.
	const [host = ""] = text.split("%", 1);
	if (isIP(host) === 0) return null;
	if (isIP(host) === 4) return { family: 4, number: BigInt(fourBytes(host)) };
	const number = eightGroups(host);
	return number >> 32n === MAPPED ? { family: 4, number: number & 0xffff_ffffn } : { family: 6, number };
}

/** What stands before an IPv4 address in IPv6 (RFC 4291, "IPv4-Mapped IPv6 Address"). */
const MAPPED = 0xffffn;

function fourBytes(text: string): number {
	return text.split(".").reduce((number, byte) => number * 256 + Number(byte), 0);
}

function eightGroups(text: string): bigint {
	// The last two groups may be written as an IPv4 address.
	const hex = text.replace(/[\d.]*\.[\d.]*$/, (dotted) => {
		const number = fourBytes(dotted);
		return `${(number >>> 16).toString(16)}:${(number & 0xffff).toString(16)}`;
	});
	const [head = "", tail] = hex.split("::");
	const groups = (part: string) => (part === "" ? [] : part.split(":"));
	const [first, last] = [groups(head), groups(tail ?? "")];
	const zeros = Array.from({ length: 8 - first.length - last.length }, () => "0");
	return [...first, ...zeros, ...last].reduce((number, group) => (number << 16n) | BigInt(`0x${group}`), 0n);
}

/** An address, or several of one beginning: `10.0.0.0/8`. What is behind the mask does not count. Null: it is neither. */
export function readNetwork(text: string): Network | null {
	const parts = /^([^%/]+)(?:\/(\d{1,3}))?$/.exec(text);
	const address = parts && readAddress(parts[1]!);
	if (!address) return null;
	const written = isIP(parts[1]!) as 4 | 6;
	const length = parts[2] === undefined ? widthOf(written) : Number(parts[2]);
	if (length > widthOf(written)) return null;
	// Less than the whole of what is before a mapped address is a network of IPv6, which holds no other mapped ones.
	const isCut = written === 6 && address.family === 4 && length < 96;
	const { family, number } = isCut ? { family: 6 as const, number: (MAPPED << 32n) | address.number } : address;
	const bits = length - (widthOf(written) - widthOf(family));
	return { family, bits, prefix: number >> BigInt(widthOf(family) - bits) };
}
