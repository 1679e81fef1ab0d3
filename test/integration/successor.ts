// What tests of a takeover share: the process that goes on in place of another, and the clients that one has.

import { test } from "bun:test";
import { type Proxy, type ProxyOptions, startProxy } from "../support/proxy.ts";
import { admin, show } from "./support.ts";

export const linuxOnly = test.skipIf(process.platform !== "linux");

/** The process that goes on in place of `old`. */
export async function successor(old: Proxy, options: ProxyOptions): Promise<Proxy> {
	const next = await startProxy(options);
	await old.waitForLog(new RegExp(`goes on as process ${next.pid}`));
	return next;
}

/** Clients of a proxy, by the admin database, whose password is `admin`. */
export async function clientsOf(proxy: Proxy): Promise<Record<string, string | null>[]> {
	await using console = await admin(proxy, "admin");
	return (await show(console, "SHOW CLIENTS")).filter(({ database }) => database !== "admin");
}
