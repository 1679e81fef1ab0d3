// What a client of several shards was told of its statements, by whichever shard it was: another shard must not tell it otherwise.
// One for each client of several shards; all of its ClientStatements (statements.ts) know it.

import type { Description } from "../backend/description.ts";

/** Names of which a client of several shards is not told differently by each; a guess. */
const MOST_TOLD = 10_000;

export class Told {
	/** `Description.portable` by the client's names, "" its unnamed statement. */
	private readonly names = new Map<string, string>();

	/** `Description.portable`; undefined when no shard has told of this name. */
	get(name: string): string | undefined {
		return this.names.get(name);
	}

	/** Some shard has told the client something else of this name. */
	differs(name: string, { portable }: Description): boolean {
		const told = this.names.get(name);
		return told !== undefined && told !== portable;
	}

	/** The client gets to know what its statement is, or could. The first shard's word counts. */
	tell(name: string, { portable }: Description): void {
		if (!this.names.has(name) && this.names.size < MOST_TOLD) this.names.set(name, portable);
	}

	/** The name is given anew, or taken away. */
	forget(name: string): void {
		this.names.delete(name);
	}

	clear(): void {
		this.names.clear();
	}
}
