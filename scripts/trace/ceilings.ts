// What `npm run trace` may come to: what it came to last, as numbers that only fall. Where we want them: 70 calls plain, 95 with a
// replica, 200 over two shards.

import type { Request, Scene } from "./measure.ts";
import type { Figures } from "./recording.ts";

// Where a server is chosen, or two answer, a call or two depend on chance.
const CEILINGS: Record<Scene, Record<Request, [calls: number, files: number, rooms: number]>> = {
	plain: { "SELECT 1": [60, 46, 26], Bind: [83, 59, 35] },
	"with a replica": { "SELECT 1": [94, 69, 36], Bind: [126, 88, 51] },
	"over two shards": { "SELECT 1": [235, 173, 90], Bind: [310, 219, 124] },
};

export function ceilingOf({ scene, request }: { scene: Scene; request: Request }): Figures {
	const [calls, files, rooms] = CEILINGS[scene][request];
	return { calls, files, rooms };
}
