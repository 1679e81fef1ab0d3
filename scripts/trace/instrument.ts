// Sources of src with a call at the beginning and the end of every body, which tell the recorder (preload.ts) who was called from
// where. What is a body is asked of the compiler's parser: a getter and a callback count as a method does.

import { type Node, type SourceFile, SyntaxKind } from "typescript/unstable/ast";
import { type Body, hasBody, nameOf, SOURCE, trees } from "../syntax.ts";

/** A function of src, as the recorder names it. */
export interface Place {
	/** Below src. */
	file: string;
	/** With its class, or with the function that it stands in when it has no name. */
	name: string;
}

export interface Instrumented {
	/** Texts by path below src. */
	sources: Map<string, string>;
	/** By the number that the calls give. */
	places: Place[];
}

/** Where a call goes into a text. */
interface Insertion {
	at: number;
	text: string;
}

export async function instrument(folder = SOURCE): Promise<Instrumented> {
	const places: Place[] = [];
	const sources = new Map<string, string>();
	for (const [file, tree] of await trees(folder)) sources.set(file, instrumentFile(file, tree, places));
	return { sources, places };
}

function instrumentFile(file: string, tree: SourceFile, places: Place[]): string {
	const insertions: Insertion[] = [];
	const visit = (node: Node, owner: string): void => {
		const name = nameOf(node, owner, tree);
		const [before, after] = hasBody(node) ? around(node, places.push({ file, name }) - 1, tree) : [];
		if (before) insertions.push(before);
		node.forEachChild((child) => {
			visit(child, name);
			return undefined;
		});
		if (after) insertions.push(after);
	};
	visit(tree, "");
	return insert(tree.text, insertions);
}

/**
 * The calls around a body. One that may be left and come back to, or that has to call `super` first, tells its beginning alone: what
 * it calls counts as called by its caller.
 */
function around(node: Body, id: number, tree: SourceFile): Insertion[] {
	const { body } = node;
	const start = body.getStart(tree);
	const text = tree.text.slice(start, body.end);
	const isBlock = body.kind === SyntaxKind.Block;
	if (isResumed(node) || (node.kind === SyntaxKind.Constructor && /\bsuper\(/.test(text))) {
		if (isBlock) return [{ at: start + 1, text: `__met(${id});` }];
		return [
			{ at: start, text: `(__met(${id}), ` },
			{ at: body.end, text: ")" },
		];
	}
	if (isBlock) {
		return [
			{ at: start + 1, text: `__enter(${id});try{` },
			{ at: body.end - 1, text: "}finally{__leave()}" },
		];
	}
	return [
		{ at: start, text: `{__enter(${id});try{return (` },
		{ at: body.end, text: ")}finally{__leave()}}" },
	];
}

/** Whether it is asynchronous, or a generator. */
function isResumed(node: Body): boolean {
	if (node.asteriskToken !== undefined) return true;
	return node.modifiers?.some(({ kind }) => kind === SyntaxKind.AsyncKeyword) ?? false;
}

/** `text` with all of `insertions`: those at one place in the order they have. */
function insert(text: string, insertions: Insertion[]): string {
	const sorted = insertions.toSorted((a, b) => a.at - b.at);
	let result = "";
	let done = 0;
	for (const { at, text: call } of sorted) {
		result += text.slice(done, at) + call;
		done = at;
	}
	return result + text.slice(done);
}
