// The settings by which an operator bounds what clients, users and databases take: part of the one table (settings.ts).

import { flag, integer, MAX, milliseconds } from "./setting.ts";

/** Of `[general]`. */
export const limits = {
	max_client_connections: integer({
		default: MAX,
		min: 1,
		text: "Ours, not PgDog's: most clients in all workers; those beyond are refused (53300). The admin database is not counted. After a reload that lowers it, or another limit of clients, nobody is disconnected. Whatever it says, clients need file descriptors.",
	}),
	max_client_connections_per_address: integer({
		default: MAX,
		min: 1,
		text: "Ours, not PgDog's: most clients from one address (of IPv6 one /64 network). Clients of the Unix socket have none, and are not limited by it.",
	}),
	max_db_connections: integer({
		default: MAX,
		min: 1,
		text: "PgBouncer's: most server connections to one entry of `[[databases]]`, of all users' pools together. A client whose pool has none waits, and a connection of another pool there is closed to make room: an idle one, or one that comes back to a pool that has more. Connections for checks are not counted.",
	}),
	max_user_connections: integer({
		default: MAX,
		min: 1,
		text: "PgBouncer's: most server connections of one user, of all its databases' pools together; otherwise as `max_db_connections`.",
	}),
	reserve_pool_size: integer({
		default: 0,
		max: 65535,
		text: "PgBouncer's: so many more server connections a pool may have while a client has waited for `reserve_pool_timeout`. They are closed when nobody has needed them for as long.",
	}),
	reserve_pool_timeout: milliseconds({
		default: 1_000,
		text: "PgBouncer's, in milliseconds: see `reserve_pool_size`. 0: no reserve. Not PgBouncer's 5 s, which is all the time that `checkout_timeout` gives here.",
	}),
	max_client_logins: integer({
		default: MAX,
		min: 1,
		text: "Ours, not PgDog's: most connections in all workers that have not logged in yet; those beyond are told (53300) as soon as they say who they are. A CancelRequest is served, and an admin let in.",
	}),
	failed_login_delay: milliseconds({
		default: 100,
		max: 60_000,
		text: "Ours, not PgDog's: who fails to log in is told so much later, as PostgreSQL's `auth_delay` has it.",
	}),
	max_failed_logins: integer({
		default: MAX,
		min: 1,
		text: "Ours, not PgDog's: after so many failed log-ins in a row from one address (of IPv6 one /64 network) those that follow, the admin's too, are refused (28000) without a look at the password, until `failed_login_pause` is over; a log-in that succeeds before forgets them. Disabled by default, since behind one address there may be many. Clients of the Unix socket have none.",
	}),
	failed_login_pause: milliseconds({
		default: 60_000,
		min: 1,
		text: "Ours, not PgDog's: an address whose last failed log-in is longer ago has failed no more.",
	}),
	query_wait_notify: milliseconds({
		default: 0,
		text: "PgBouncer's, in milliseconds: a client that has waited for a server connection for so long is told by a NOTICE that it queues, once for each wait, where that is between two answers. 0: none is. So by default, since what waits for `checkout_timeout`'s 5 s, PgBouncer's value here, is told by an error. With several shards each wait for one of them counts. Not at log-in.",
	}),
	pin_session_locks: flag({
		default: true,
		text: "Ours; PgDog does so always. In transaction mode a client that takes a session-level advisory lock keeps its server connection until it has given all of them back: migrations rely on it. What a function or view of the database locks cannot be seen. Off: such locks end with the transaction, for the next client's sake.",
	}),
	pub_sub_channel_size: integer({
		default: 0,
		max: 1_000_000,
		text: "LISTEN in transaction mode, and how many notifications may wait for a client that does not read them, or is in a transaction; never more than 1 MiB. Of more the oldest are dropped: a line once a minute says so, and SHOW LISTENERS counts them. 0: what LISTEN says is gone with its transaction (PgDog: an error). See docs/transaction-mode.md.",
	}),
	transaction_timeout: milliseconds({
		default: MAX,
		min: 1,
		text: "PgBouncer's, in milliseconds: a client whose transaction is open, or whose statement runs, for longer is disconnected (25P04), and its server connection brought to order. Looked at some times a second.",
	}),
};

/** Of `[[databases]]`. */
export const databaseLimits = {
	max_client_connections: integer({
		default: undefined,
		min: 1,
		text: "Ours, not PgDog's: most clients of the database, of all users together. Of several entries of a database the least counts.",
	}),
	max_db_connections: integer({
		default: undefined,
		min: 1,
		text: "Instead of the general `max_db_connections`, for this entry.",
	}),
};

/** Of `[[users]]`. */
export const userLimits = {
	max_client_connections: integer({
		default: undefined,
		min: 1,
		text: "Ours, not PgDog's: most clients of the user, in all databases together.",
	}),
	max_user_connections: integer({
		default: undefined,
		min: 1,
		text: "Instead of the general `max_user_connections`.",
	}),
};
