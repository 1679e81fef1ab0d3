// Sources of src with a call at the beginning and the end of every body, which tell the recorder (preload.ts) who was called from
// where. What is a body is asked of the compiler's parser: a getter and a callback count as a method does.

import { type Node, type SourceFile, SyntaxKind } from "typescript/unstable/ast";
import { SOURCE, trees } from "../syntax.ts";

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

type Named = Node & { name?: { getText(file: SourceFile): string } };
type WithBody = Node & { body: Node; asteriskToken?: Node; modifiers?: readonly Node[] };

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

function hasBody(node: Node): node is WithBody {
	if (node.kind === SyntaxKind.ModuleDeclaration) return false;
	return (node as Partial<WithBody>).body !== undefined;
}

/** The name of what stands in `node`: a class and its member, a function, a constant; else that of what it stands in. */
function nameOf(node: Node, owner: string, tree: SourceFile): string {
	const own = (node as Named).name?.getText(tree);
	switch (node.kind) {
		case SyntaxKind.ClassDeclaration:
		case SyntaxKind.FunctionDeclaration:
			return own ?? owner;
		case SyntaxKind.MethodDeclaration:
		case SyntaxKind.PropertyDeclaration:
		case SyntaxKind.GetAccessor:
		case SyntaxKind.SetAccessor:
			return `${owner}.${own}`;
		case SyntaxKind.Constructor:
			return `new ${owner}`;
		case SyntaxKind.ArrowFunction:
		case SyntaxKind.FunctionExpression:
			return isNamed(node) ? owner : `${owner}/callback`;
		case SyntaxKind.VariableDeclaration:
			if (!isFunction((node as { initializer?: Node }).initializer)) return owner;
			return owner === "" ? own! : `${owner}/${own}`;
		default:
			return owner;
	}
}

function isFunction(node: Node | undefined): boolean {
	return node?.kind === SyntaxKind.ArrowFunction || node?.kind === SyntaxKind.FunctionExpression;
}

/** Whether a function without a name of its own is what a constant or a field is from the beginning. */
function isNamed({ parent }: Node): boolean {
	return parent.kind === SyntaxKind.VariableDeclaration || parent.kind === SyntaxKind.PropertyDeclaration;
}

/**
 * The calls around a body. One that may be left and come back to, or that has to call `super` first, tells its beginning alone: what
 * it calls counts as called by its caller.
 */
function around(node: WithBody, id: number, tree: SourceFile): Insertion[] {
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
function isResumed(node: WithBody): boolean {
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
