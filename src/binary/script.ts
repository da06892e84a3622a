import { createRequire } from 'node:module';
import { getAssetKeys, getRawAsset } from 'node:sea';
import { Script } from 'node:vm';

/** What a script of the single executable is given: CommonJS. */
type Wrapped = (require: (id: string) => unknown, module: { exports: unknown }, exports: unknown) => void;

/** Around a script's source; its code cache is made with the same text. */
export const wrapperHead = '(function(require,module,exports){';
export const wrapperTail = '\n})';

const compiled = new Map<string, Script>();
const loaded = new Map<string, { exports: unknown }>();

/** Node's own modules. */
export const requireBuiltin = createRequire('/');

/**
 * Compiles the embedded script `name`, once in this thread. The code cache, made at build time for this very Node, spares
 * parsing and compiling; where there is none (another architecture) or V8 turns it down, the script is compiled as usual.
 */
export function compileScript(name: string): Script {
  const known = compiled.get(name);
  if (known) return known;
  // The bundle is pure ASCII, so that V8 keeps one byte a character and nothing needs decoding.
  const source = Buffer.from(getRawAsset(name)).toString('latin1');
  const cache = `${name}.cache`;
  const cachedData = getAssetKeys().includes(cache) ? Buffer.from(getRawAsset(cache)) : undefined;
  const script = new Script(wrapperHead + source + wrapperTail, { filename: name, cachedData });
  compiled.set(name, script);
  return script;
}

/** Runs the embedded script `name`, once in this thread, and returns its exports. Scripts require each other as `./NAME`. */
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
