// Whether a value is one that a setting may have. The one file that loads zod: workers know the settings without it.

import { z } from "zod";
import type { Setting } from "./setting.ts";

/** Made once for each setting: thousands of databases and users have the same ones. */
const schemas = new WeakMap<Setting<unknown>, z.ZodType>();

/** @param value as TOML has it, or as `Setting.fromText` has made it */
export function judge<T>(setting: Setting<T>, value: unknown): z.ZodSafeParseResult<T> {
	let schema = schemas.get(setting);
	if (schema === undefined) {
		schema = setting.schema(z);
		schemas.set(setting, schema);
	}
	return schema.safeParse(value) as z.ZodSafeParseResult<T>;
}
