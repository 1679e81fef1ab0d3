// What a client of several shards was told of its statements, by whichever shard it was: another shard must not tell it otherwise.
// Shards come to the Parses of a request at different times: each counts those of a name that it was sent (`ShardTold`), and goes by
// what was told of the last of them; the client counts those that all have done (`Told`). Owned by ShardedStatements
// (sharded-statements.ts); known to all of its ClientStatements (statements.ts).

import type { Description } from "../backend/description.ts";

/** Words that are remembered: of other statements a client may be told differently by each shard; a guess. */
const MOST_TOLD = 10_000;

/** `Description.portable` by the client's names, "" its unnamed statement. */
type Words = Map<string, string>;

/** The client's. */
export class Told {
	/** By how often the request under way has given the name: first what was told of the names as the client has them without it. */
	readonly words: (Words | undefined)[] = [new Map()];
	private size = 0;
	/** How often the request under way has given a name. */
	private readonly given = new Map<string, number>();
	/** There may be something to settle; written here, and by the shards. */
	isUnsettled = false;
	private readonly shards: ShardTold[] = [];

	/** One shard's view. */
	ofShard(): ShardTold {
		const shard = new ShardTold(this);
		this.shards.push(shard);
		return shard;
	}

	/** A shard has told of what the name means when it was given so often. */
	add(name: string, count: number, word: string): void {
		if (this.size >= MOST_TOLD) return;
		this.words[count] ??= new Map();
		this.words[count].set(name, word);
		this.size++;
	}

	/** A Parse of the name is done on all shards that were sent it, or none was. */
	give(name: string): void {
		this.given.set(name, (this.given.get(name) ?? 0) + 1);
		this.isUnsettled = true;
	}

	/** The name is taken away on all shards that might still have told of it. */
	forget(name: string): void {
		if (this.words[this.given.get(name) ?? 0]?.delete(name)) this.size--;
	}

	clear(): void {
		for (const words of this.words) for (const name of words?.keys() ?? []) this.forget(name);
	}

	/** All shards have answered what they were sent: what was told counts as far as it is of what the client has. */
	settle(): void {
		const { words, given, shards } = this;
		const kept = words[0]!;
		for (const { given } of shards) given.clear();
		for (const [name, count] of given) {
			const word = words[count]?.get(name);
			if (word === undefined) kept.delete(name);
			else kept.set(name, word);
		}
		given.clear();
		words.length = 1;
		this.size = kept.size;
		this.isUnsettled = false;
	}
}

/** One shard's view, as far as it was sent the request under way. */
export class ShardTold {
	private readonly client: Told;
	/** How often the request under way has given a name; `Told.settle` clears it. */
	readonly given = new Map<string, number>();

	constructor(client: Told) {
		this.client = client;
	}

	/** `Description.portable`; undefined when no shard has told of this name. */
	get(name: string): string | undefined {
		return this.client.words[this.given.get(name) ?? 0]?.get(name);
	}

	/**
	 * The client gets to know what its statement is, or could.
	 * @param description null: the server has not said
	 * @returns false when some shard has told it something else
	 */
	tell(name: string, description: Description | null): boolean {
		if (description === null) return true;
		const { portable } = description;
		const count = this.given.get(name) ?? 0;
		const told = this.client.words[count]?.get(name);
		if (told !== undefined) return told === portable;
		this.client.add(name, count, portable);
		return true;
	}

	/** A Parse of the name is sent. */
	give(name: string): void {
		this.given.set(name, (this.given.get(name) ?? 0) + 1);
		this.client.isUnsettled = true;
	}
}
