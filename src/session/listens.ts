// The channels that one client listens on, whatever server it has: LISTEN and UNLISTEN take effect when their transaction commits, and
// are undone by ROLLBACK, and by ROLLBACK TO a savepoint (PostgreSQL docs, LISTEN). What was said is done when its command tag comes. Pure
// data; client/hearing.ts writes it.

import { Act, type ListenAct } from "../parser/listens.ts";

/** Most channels of a client, and most statements of one transaction that are remembered; a guess, generous. */
export const MOST_LISTENS = 10_000;

interface Savepoint {
	readonly name: string;
	/** How many of `open` were before it. */
	readonly length: number;
}

export class Listens {
	/** In force. */
	readonly channels = new Set<string>();
	/** Said, and not answered yet. */
	private said: ListenAct[] = [];
	/** Done in the transaction that is open, so that its end decides. */
	private open: ListenAct[] = [];
	private readonly savepoints: Savepoint[] = [];

	/** Something was said whose transaction has not ended. */
	get isOpen(): boolean {
		return this.said.length + this.open.length > 0;
	}

	/** Whether so many statements more of one transaction may be remembered. */
	hasRoom(more: number): boolean {
		return this.said.length + this.open.length + this.savepoints.length + more <= MOST_LISTENS;
	}

	/** The transaction that is open has a LISTEN of this channel. */
	mayListen(channel: string): boolean {
		const isThis = ({ act, name }: ListenAct) => act === Act.Listen && name === channel;
		return this.open.some(isThis) || this.said.some(isThis);
	}

	/** These statements are said. */
	say(acts: readonly ListenAct[]): void {
		this.said.push(...acts);
	}

	/** A command tag: what was said before the statement that it is for has not been run, or had another tag. */
	onTag(tag: string): void {
		const at = this.said.findIndex(({ act }) => act === tag);
		if (at < 0) {
			// COMMIT of a transaction that has failed.
			if (tag === Act.Rollback && this.said[0]?.act === Act.Commit) {
				this.said.shift();
				this.undo();
			}
			return;
		}
		this.done(this.said.splice(0, at + 1)[at]!);
	}

	private done(done: ListenAct): void {
		const { open, savepoints } = this;
		const { act, name } = done;
		switch (act) {
			case Act.Savepoint:
				savepoints.push({ name, length: open.length });
				break;
			case Act.Release:
				// One that is not here was set before all that is.
				this.forgetFrom(savepoints.findLastIndex((each) => each.name === name));
				break;
			case Act.Rollback: {
				if (name === "") {
					this.undo();
					break;
				}
				const at = savepoints.findLastIndex((each) => each.name === name);
				open.length = at < 0 ? 0 : savepoints[at]!.length;
				savepoints.length = at + 1;
				break;
			}
			case Act.Commit:
				this.commit();
				break;
			default:
				open.push(done);
		}
	}

	private forgetFrom(at: number): void {
		if (at >= 0) this.savepoints.length = at;
	}

	/** All of the request is answered. @param idle no transaction is open @param committed and the last has not failed */
	answered(idle: boolean, committed: boolean): void {
		this.said = [];
		if (!idle) return;
		if (committed) this.commit();
		else this.undo();
	}

	private commit(): void {
		for (const { act, name } of this.open) {
			if (act === Act.Listen) this.channels.add(name);
			else if (name !== "") this.channels.delete(name);
			else this.channels.clear();
		}
		this.undo();
	}

	private undo(): void {
		this.open = [];
		this.savepoints.length = 0;
	}
}
