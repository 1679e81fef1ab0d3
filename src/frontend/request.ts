// What a request asks, for the router: the text of a Query, or text and parameters of each Bind in a batch. Only used
// where there is something to decide (`Router.needed`); opens messages that the hot path passes on unopened.

import type { Router, RouteRequest } from "../router/router.ts";
import type { Route } from "../router/route.ts";
import { Frontend } from "../wire/codes.ts";
import { endOfString, HEADER, readInt32 } from "../wire/frame.ts";
import type { ClientStatements } from "./prepared.ts";

/** One per client of a routed cluster. */
export class RequestRouter {
	private readonly router: Router;
	private readonly asked: RouteRequest = {
		sql: "",
		inTransaction: false,
		bind: null,
		bindStart: 0,
		bindEnd: 0,
	};
	/** Where the last `batch` ended in its chunk: Binds before it have been asked about. */
	end = 0;

	constructor(router: Router) {
		this.router = router;
	}

	/** The Query message `chunk[at, next)`, which is whole. */
	query(chunk: Buffer, at: number, next: number, inTransaction: boolean): Route {
		const { asked } = this;
		asked.sql = chunk.utf8Slice(at + HEADER, next - 1);
		asked.inTransaction = inTransaction;
		asked.bind = null;
		return this.router.route(asked);
	}

	/** The whole Bind `chunk[at, next)`; null when it names a statement that does not exist: the server's to refuse. */
	bind(
		chunk: Buffer,
		at: number,
		next: number,
		statements: ClientStatements | null,
		inTransaction: boolean,
		texts: ReadonlyMap<string, string> | null = null,
	): Route | null {
		const portalEnd = endOfString(chunk, at + HEADER, next);
		const nameEnd = portalEnd < 0 ? -1 : endOfString(chunk, portalEnd + 1, next);
		if (nameEnd < 0) return null;
		const name = nameEnd === portalEnd + 1 ? "" : chunk.utf8Slice(portalEnd + 1, nameEnd);
		const sql = texts?.get(name) ?? statements?.textOf(name) ?? null;
		if (sql === null) return null;
		const { asked } = this;
		asked.sql = sql;
		asked.inTransaction = inTransaction;
		asked.bind = chunk;
		asked.bindStart = nameEnd + 1;
		asked.bindEnd = next;
		const route = this.router.route(asked);
		asked.bind = null;
		return route;
	}

	/** A batch without a Bind, by the text of its first Parse; "" where it has none. */
	unbound(sql: string, inTransaction: boolean): Route {
		return this.router.routeUnbound(sql, inTransaction);
	}

	/**
	 * The extended-query messages from `at` to the next Sync or Flush, which are all here. One server runs them all: the
	 * first refusal counts for the batch, and one write makes it a write.
	 */
	batch(chunk: Buffer, at: number, statements: ClientStatements | null, inTransaction = false): Route {
		let found: Route | null = null;
		let firstText: string | null = null;
		let texts: Map<string, string> | null = null;
		while (chunk.length - at >= HEADER) {
			const code = chunk[at]!;
			const next = at + 1 + readInt32(chunk, at + 1);
			if (next > chunk.length || code === Frontend.Sync || code === Frontend.Flush || code === Frontend.Query) break;
			if (code === Frontend.Parse) {
				const nameEnd = endOfString(chunk, at + HEADER, next);
				const textEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, next);
				if (textEnd >= 0) {
					texts ??= new Map();
					const text = chunk.utf8Slice(nameEnd + 1, textEnd);
					texts.set(chunk.utf8Slice(at + HEADER, nameEnd), text);
					firstText ??= text;
				}
			} else if (code === Frontend.Bind) {
				const route = this.bind(chunk, at, next, statements, inTransaction, texts);
				if (route?.error != null) return route;
				// The first says where; a later write takes the batch to the primary of that place.
				if (route !== null && (found === null || (found.read && !route.read))) found = route;
			}
			at = next;
		}
		this.end = at;
		if (found !== null) return found;
		return this.unbound(firstText ?? "", inTransaction);
	}
}
