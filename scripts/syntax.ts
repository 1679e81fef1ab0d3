// The syntax trees of our code, from the compiler's own parser: for tools that look at it, or put something into it.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { type Node, type SourceFile, SyntaxKind } from "typescript/unstable/ast";
import { API, type Project } from "typescript/unstable/async";

export const SOURCE = join(import.meta.dir, "..", "src");

/** A function, method, getter, constructor or callback. */
export type Body = Node & {
	body: Node;
	asteriskToken?: Node;
	modifiers?: readonly Node[];
	parameters: readonly Node[];
};

/** Trees of all files of a folder, by path below it. Parsed only: no types, no imports followed. */
export async function trees(source = SOURCE): Promise<Map<string, SourceFile>> {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-syntax-"));
	const project = join(folder, "tsconfig.json");
	const compilerOptions = { noLib: true, noResolve: true, types: [], noEmit: true, allowImportingTsExtensions: true };
	writeFileSync(project, JSON.stringify({ compilerOptions, include: [join(source, "**", "*.ts")] }));
	try {
		return await withProject(project, (opened) => treesOf(opened, source));
	} finally {
		rmSync(folder, { recursive: true });
	}
}

/** Opens the project of a tsconfig.json for as long as `work` takes. */
export async function withProject<T>(path: string, work: (project: Project) => Promise<T>): Promise<T> {
	const api = new API({ cwd: join(path, "..") });
	try {
		const snapshot = await api.updateSnapshot({ openProjects: [path] });
		return await work(snapshot.getProjects()[0]!);
	} finally {
		await api.close();
	}
}

/** Trees of those of the project's files that are in `folder`, by path below it. */
export async function treesOf({ program }: Project, folder: string): Promise<Map<string, SourceFile>> {
	const found = new Map<string, SourceFile>();
	for (const name of await program.getSourceFileNames())
		if (name.startsWith(`${folder}/`)) found.set(relative(folder, name), (await program.getSourceFile(name))!);
	return found;
}

/** Calls `see` with each node below `node`, and the name of what it stands in. */
export function walk(node: Node, tree: SourceFile, see: (node: Node, name: string) => void, owner = ""): void {
	const name = nameOf(node, owner, tree);
	see(node, name);
	node.forEachChild((child) => {
		walk(child, tree, see, name);
		return undefined;
	});
}

type Named = Node & { name?: { getText(file: SourceFile): string } };

export function hasBody(node: Node): node is Body {
	if (node.kind === SyntaxKind.ModuleDeclaration) return false;
	return (node as Partial<Body>).body !== undefined;
}

/** The name of what stands in `node`: a class and its member, a function, a constant; else that of what it stands in. */
export function nameOf(node: Node, owner: string, tree: SourceFile): string {
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
