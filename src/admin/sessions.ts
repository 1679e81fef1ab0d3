// The sessions of the admin database that one worker has, and the way of their questions to the main thread and back.

import type { Stream } from "../net/stream.ts";
import type { AdminShape } from "./command.ts";
import type { CommandAnswer } from "./commands.ts";
import { AdminSession } from "./session.ts";

export class AdminSessions {
	private readonly version: string;
	private readonly post: (question: { id: number; sql: string; shape: AdminShape }) => void;
	private readonly sessions = new Set<AdminSession>();
	private readonly asked = new Map<number, (answer: CommandAnswer) => void>();
	private lastAsked = 0;

	/** @param version as in the first log line @param post has the main thread answer, by `answered` */
	constructor(version: string, post: (question: { id: number; sql: string; shape: AdminShape }) => void) {
		this.version = version;
		this.post = post;
	}

	/** A session takes over the stream of a client that has logged in. */
	open(stream: Stream, address: string, parameters: ReadonlyMap<string, string>, shape: AdminShape): void {
		const session: AdminSession = new AdminSession(stream, {
			version: this.version,
			shape,
			address,
			parameters,
			ask: (sql) => this.ask(sql, shape),
			onOver: () => this.sessions.delete(session),
		});
		this.sessions.add(session);
		stream.owner = session;
		session.begin();
	}

	private ask(sql: string, shape: AdminShape): Promise<CommandAnswer> {
		const { promise, resolve } = Promise.withResolvers<CommandAnswer>();
		const id = ++this.lastAsked;
		this.asked.set(id, resolve);
		this.post({ id, sql, shape });
		return promise;
	}

	answered(id: number, answer: CommandAnswer): void {
		this.asked.get(id)?.(answer);
		this.asked.delete(id);
	}

	close(error: Parameters<AdminSession["close"]>[0]): void {
		for (const session of [...this.sessions]) session.close(error);
	}
}
