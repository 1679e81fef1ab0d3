// The rules of the house that no linter has: what nobody but contain.ts may do, who writes the fields of a Server, that a promise is
// waited for, how long a file may be, and how long, how branched and how wide a function (ratchets.ts). Run by `npm run check`.

import { join } from "node:path";
import { type Node, type SourceFile, SyntaxKind } from "typescript/unstable/ast";
import type { Checker, Project } from "typescript/unstable/async";
import { hasBody, SOURCE, treesOf, walk, withProject } from "../syntax.ts";
import { BEYOND, LIMITS, type Measure, MOST_LINES, UNCONTAINED } from "./ratchets.ts";

const ROOT = join(SOURCE, "..");
/** Rooms whose fields nobody else writes. */
const OWNING = ["backend", "session"];

type Trees = Map<string, SourceFile>;

/** A value by the function it was measured of: `client/walk.ts Walk.read`. The largest, where several have one name. */
type Measured = Map<string, number>;

interface Found {
	file: string;
	tree: SourceFile;
	node: Node;
}

const place = ({ file, tree, node }: Found) =>
	`src/${file}:${tree.getLineAndCharacterOfPosition(node.getStart(tree)).line + 1}`;

function all(trees: Trees, wanted: (node: Node) => boolean): Found[] {
	const found: Found[] = [];
	for (const [file, tree] of trees)
		walk(tree, tree, (node) => {
			if (wanted(node)) found.push({ file, tree, node });
		});
	return found;
}

// ---- what functions come to -----------------------------------------------------------------------------------------

/** Lines of bodies, and numbers of parameters. */
export function sizes(trees: Trees): Record<"lines" | "parameters", Measured> {
	const measured = { lines: new Map<string, number>(), parameters: new Map<string, number>() };
	for (const [file, tree] of trees)
		walk(tree, tree, (node, name) => {
			if (!hasBody(node)) return;
			const line = (at: number) => tree.getLineAndCharacterOfPosition(at).line;
			keepLargest(measured.lines, `${file} ${name}`, line(node.end) - line(node.getStart(tree)) + 1);
			keepLargest(measured.parameters, `${file} ${name}`, node.parameters.length);
		});
	return measured;
}

/** Cognitive complexity, as Biome counts it; of those functions only that are beyond its own limit of 15. */
function complexities(trees: Trees): Measured {
	const { stdout } = Bun.spawnSync(
		[
			join(ROOT, "node_modules/.bin/biome"),
			"lint",
			"--only=complexity/noExcessiveCognitiveComplexity",
			"--reporter=json",
			"--max-diagnostics=none",
			"src",
		],
		{ cwd: ROOT, stderr: "ignore" },
	);
	const report = JSON.parse(stdout.toString()) as {
		diagnostics: { message: string; location: { path: string; start: { line: number; column: number } } }[];
	};
	const measured: Measured = new Map();
	for (const { message, location } of report.diagnostics) {
		const file = location.path.replace(/^src\//, "");
		const tree = trees.get(file)!;
		const at = tree.getPositionOfLineAndCharacter(location.start.line - 1, location.start.column - 1);
		let innermost = "";
		walk(tree, tree, (node, name) => {
			if (hasBody(node) && node.getStart(tree) <= at && at < node.end) innermost = name;
		});
		keepLargest(measured, `${file} ${innermost}`, Number(/complexity of (\d+)/.exec(message)![1]));
	}
	return measured;
}

function keepLargest(measured: Measured, key: string, value: number): void {
	measured.set(key, Math.max(measured.get(key) ?? 0, value));
}

/** Of what a function has become better by, before its entry has to follow. */
const SLACK = 0.1;

/** What is beyond its limit and was not, or is further beyond than it was; and what is listed with more than it comes to. */
export function beyond(
	measure: Measure,
	measured: Measured,
	limit = LIMITS[measure],
	listed: Readonly<Record<string, number>> = BEYOND[measure],
): string[] {
	const faults: string[] = [];
	for (const [name, value] of measured) {
		const allowed = Math.max(limit, listed[name] ?? 0);
		if (value > allowed) faults.push(`src/${name}: ${measure} ${value}, more than ${allowed}`);
	}
	for (const [name, value] of Object.entries(listed)) {
		const now = measured.get(name) ?? 0;
		if (now <= limit) faults.push(`src/${name}: ${measure} are no more than ${limit}: take it out of ratchets.ts`);
		else if (now < value * (1 - SLACK)) faults.push(`src/${name}: ${measure} ${now}: write that into ratchets.ts`);
	}
	return faults;
}

/** A file that is longer has more than one noun. */
export function tooLong(trees: Trees, most = MOST_LINES): string[] {
	const faults: string[] = [];
	for (const [file, tree] of trees) {
		const { line } = tree.getLineAndCharacterOfPosition(tree.end);
		if (line > most) faults.push(`src/${file}: ${line} lines, more than ${most}`);
	}
	return faults;
}

// ---- what runs outside of contain.ts --------------------------------------------------------------------------------

const UNGUARDED = new Set(["setTimeout", "startTimer", "setInterval", "setImmediate", "queueMicrotask"]);

/** Timers, microtasks and `.then(`: what they run is caught by nobody. */
export function uncontained(trees: Trees, exceptions = UNCONTAINED): string[] {
	const found = all(trees, (node) => {
		if (node.kind !== SyntaxKind.CallExpression) return false;
		const called = (node as Node & { expression: Node & { text?: string; name?: Node & { text?: string } } })
			.expression;
		return UNGUARDED.has(called.text ?? "") || called.name?.text === "then";
	}).filter(({ file }) => file !== "contain.ts");
	const faults: string[] = [];
	for (const [file, places] of Map.groupBy(found, ({ file }) => file)) {
		const allowed = exceptions[file]?.places ?? 0;
		if (places.length <= allowed) continue;
		const where = places.map(place).join(", ");
		faults.push(`a timer, a microtask or a then goes through contain.ts, but for ${allowed} in ${file}: ${where}`);
	}
	for (const [file, { places }] of Object.entries(exceptions))
		if (found.filter((each) => each.file === file).length < places)
			faults.push(`src/${file} needs fewer exceptions of contain.ts than ratchets.ts gives it`);
	return faults;
}

// ---- what needs types -----------------------------------------------------------------------------------------------

const ASSIGNMENTS = new Set<SyntaxKind>();
for (let kind = SyntaxKind.FirstAssignment; kind <= SyntaxKind.LastAssignment; kind++) ASSIGNMENTS.add(kind);

type Operation = Node & {
	left: Node;
	operatorToken: Node;
	operand: Node;
	operator: SyntaxKind;
	name: Node;
	expression: Node;
};

/** The property that a node assigns to, if it assigns to one of another object than `this`. */
function assigned(node: Node): Node | undefined {
	const { left, operatorToken, operand, operator } = node as Operation;
	let target: Node | undefined;
	if (node.kind === SyntaxKind.BinaryExpression && ASSIGNMENTS.has(operatorToken.kind)) target = left;
	if (node.kind === SyntaxKind.PostfixUnaryExpression) target = operand;
	if (node.kind === SyntaxKind.PrefixUnaryExpression)
		if (operator === SyntaxKind.PlusPlusToken || operator === SyntaxKind.MinusMinusToken) target = operand;
	if (target?.kind !== SyntaxKind.PropertyAccessExpression) return undefined;
	const { name, expression } = target as Operation;
	return expression.kind === SyntaxKind.ThisKeyword ? undefined : name;
}

/** Fields of a Server and of a client's session, and of what they are made of, are written by their own room, which alone knows what goes with each. */
export async function writtenByOthers(trees: Trees, checker: Checker): Promise<string[]> {
	const found = all(trees, (node) => assigned(node) !== undefined);
	const symbols = await checker.getSymbolAtLocation(found.map(({ node }) => assigned(node)!));
	return found.flatMap((each, index) => {
		const declared = symbols[index]?.valueDeclaration?.path;
		const room = OWNING.find((owning) => declared?.includes(`/src/${owning}/`));
		if (room === undefined || each.file.startsWith(`${room}/`)) return [];
		return [`${place(each)}: fields of ${room}/ are written there only`];
	});
}

/** A promise that nobody waits for, nor gives to `void`: its rejection would end the process. */
export async function floating(trees: Trees, checker: Checker): Promise<string[]> {
	const found = all(trees, (node) => {
		if (node.kind !== SyntaxKind.ExpressionStatement) return false;
		return (node as Operation).expression.kind === SyntaxKind.CallExpression;
	});
	const types = await checker.getTypeAtLocation(found.map(({ node }) => (node as Operation).expression));
	const names = await Promise.all(types.map(async (type) => (await type?.getSymbol())?.name));
	return found
		.filter((each, index) => names[index] === "Promise" && !isCaught(each.node))
		.map((each) => `${place(each)}: nobody waits for this promise`);
}

/** Whether a statement ends in `.catch(…)`, or in a `.then(…)` with a second function. */
function isCaught(statement: Node): boolean {
	type Call = Node & { expression: Node & { name?: Node & { text: string } }; arguments: readonly Node[] };
	const call = (statement as Operation).expression as Call;
	const method = call.expression.name?.text;
	return method === "catch" || (method === "then" && call.arguments.length === 2);
}

async function faults(project: Project): Promise<string[]> {
	const trees = await treesOf(project, SOURCE);
	return [
		...tooLong(trees),
		...beyond("lines", sizes(trees).lines),
		...beyond("parameters", sizes(trees).parameters),
		...beyond("complexity", complexities(trees)),
		...uncontained(trees),
		...(await writtenByOthers(trees, project.checker)),
		...(await floating(trees, project.checker)),
	];
}

if (import.meta.main) {
	const found = await withProject(join(ROOT, "tsconfig.json"), faults);
	for (const fault of found) console.log(fault);
	process.exit(found.length === 0 ? 0 : 1);
}
