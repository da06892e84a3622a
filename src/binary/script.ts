import { createRequire } from 'node:module';
import { getAssetKeys, getRawAsset } from 'node:sea';
import { Script } from 'node:vm';

/** A script of the single executable, as a CommonJS module. */
type Wrapped = (require: (id: string) => unknown, module: { exports: unknown }, exports: unknown) => void;

/** The wrapper of a script's source, which the code cache includes. */
export const wrapperHead = '(function(require,module,exports){';
export const wrapperTail = '\n})';

const compiled = new Map<string, Script>();
const loaded = new Map<string, { exports: unknown }>();

/** Loads a built-in module of Node. */
export const requireBuiltin = createRequire('/');

/**
 * Compiles the embedded script `name`, once per thread. The build's code cache saves the work; without one
 * (on another architecture), or if V8 rejects it, the script is compiled as usual.
 */
export function compileScript(name: string): Script {
  const known = compiled.get(name);
  if (known) return known;
  // The bundle is ASCII: V8 needs one byte per character and no decoding.
  const source = Buffer.from(getRawAsset(name)).toString('latin1');
  const cache = `${name}.cache`;
  const cachedData = getAssetKeys().includes(cache) ? Buffer.from(getRawAsset(cache)) : undefined;
  const script = new Script(wrapperHead + source + wrapperTail, { filename: name, cachedData });
  compiled.set(name, script);
  return script;
}

/**
 * Runs the embedded script `name`, once per thread, and returns its exports. Scripts import each other as
 * `./NAME`.
 */
export function requireScript(name: string): unknown {
  const known = loaded.get(name);
  if (known) return known.exports;
  const module = { exports: {} };
  loaded.set(name, module);
  const wrapped = compileScript(name).runInThisContext() as Wrapped;
  wrapped(requireFromScript, module, module.exports);
  return module.exports;
}

function requireFromScript(id: string): unknown {
  return id.startsWith('./') ? requireScript(id.slice(2)) : requireBuiltin(id);
}
