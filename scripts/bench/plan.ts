// Who runs what in a round of the bench, and in which order.

import type { Contestant } from "./contestants.ts";
import type { Cell } from "./measure.ts";

export interface Run {
	cell: Cell;
	contestant: Contestant;
}

/**
 * The runs of a round: cell by cell, all contestants one after the other, each round starting with another one, so that none
 * always follows the same neighbour. One that has no prepared statements runs `extended` in their place, for the ratios,
 * unless it does so anyway.
 */
export function plan(cells: Cell[], contestants: Contestant[], round: number): Run[] {
	const at = round % contestants.length;
	const turned = [...contestants.slice(at), ...contestants.slice(0, at)];
	const runs: Run[] = [];
	for (const cell of cells) {
		const instead: Cell = { mode: "extended", clients: cell.clients };
		const planned = cells.some(({ mode, clients }) => mode === instead.mode && clients === instead.clients);
		for (const contestant of turned) {
			if (cell.mode !== "prepared" || contestant.prepares) runs.push({ cell, contestant });
			else if (!planned) runs.push({ cell: instead, contestant });
		}
	}
	return runs;
}
