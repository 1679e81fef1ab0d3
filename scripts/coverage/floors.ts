// The share of each room's lines, in percent, that tests without a compiled proxy must run: what it was last, rounded down. The
// floors only rise. What is low lives by the integration tests.

import type { Floors } from "./rooms.ts";

export const FLOORS: Floors = {
	admin: 99,
	auth: 99,
	backend: 92,
	client: 78,
	config: 99,
	login: 98,
	net: 93,
	parser: 99,
	plugin: 90,
	pool: 95,
	router: 96,
	session: 98,
	shards: 96,
	stats: 99,
	status: 97,
	"two-phase": 95,
	wire: 99,
};
