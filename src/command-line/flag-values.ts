import { UsageError, printable } from '../errors.ts';
import type { WantedLayers } from '../oci/first-layers.ts';
import type { Owner } from '../tar/entry.ts';
import { type Runtime, runtimes, type VirtualMachine, virtualMachines } from '../runtime/config-files.ts';
import { osErrorOf, reasonOf } from '../sys/os-error.ts';
import { utf8Path } from '../sys/os-path.ts';
import { parseId } from '../sys/passwd.ts';

/**
 * Parses a flag's value.
 *
 * @param flag its long name with dashes
 * @throws UsageError
 */
export type ParseFlag<T> = (text: string, flag: string) => T;

const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ...['1', 't', 'T', 'true', 'TRUE', 'True'].map((text) => [text, true] as const),
  ...['0', 'f', 'F', 'false', 'FALSE', 'False'].map((text) => [text, false] as const),
]);

/**
 * Accepts the texts of Go's strconv.ParseBool.
 *
 * @throws UsageError
 */
export const parseBoolean: ParseFlag<boolean> = (text, flag) => {
  const value = BOOLEANS.get(text);
  if (value !== undefined) return value;
  throw new UsageError(`invalid boolean value "${printable(text)}" for ${flag}`, {
    hint: `write ${flag}, ${flag}=true or ${flag}=false`,
  });
};

/** `7` → 7, at least `least`. */
export const count =
  (least: number): ParseFlag<number> =>
  (text, flag) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : -1;
    if (value >= least) return value;
    throw new UsageError(`${flag} takes a whole number from ${least} up, not "${printable(text)}"`, {
      hint: `write a number, as in ${flag} ${Math.max(least, 3)}`,
    });
  };

const BYTES: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** `10G`, `500MiB`, `1048576` → bytes; units are powers of 1024. */
export const parseBytes: ParseFlag<number> = (text, flag) => {
  const match = /^(\d{1,12}(?:\.\d{1,6})?)([kmgt]?)(?:i?b)?$/i.exec(text);
  if (match) return Math.floor(Number(match[1]) * BYTES[match[2]!.toLowerCase()]!);
  throw new UsageError(`${flag} takes a size, not "${printable(text)}"`, {
    hint: `write a size, as in ${flag} 500M or ${flag} 10G`,
  });
};

/** Fewer bytes cannot hold an ext4: the unit was forgotten. */
const LEAST_DISK_BYTES = 2 ** 16;

/** Parses the size of a disk as `parseBytes` does. */
export const parseDiskSize: ParseFlag<number> = (text, flag) => {
  const bytes = parseBytes(text, flag);
  if (bytes >= LEAST_DISK_BYTES || !/^\d+$/.test(text)) return bytes;
  throw new UsageError(`${flag} ${text} is ${text} bytes, too few for a disk`, {
    hint: `write the unit, as in ${flag} ${text}M`,
  });
};

const MILLISECONDS: Readonly<Record<string, number>> = { ms: 1, '': 1000, s: 1000, m: 60_000 };

/** `500ms`, `2s`, `1m`, `2` (seconds) → milliseconds. */
export const parseDuration: ParseFlag<number> = (text, flag) => {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|)$/.exec(text);
  if (match) return Number(match[1]) * MILLISECONDS[match[2]!]!;
  throw new UsageError(`${flag} takes a time, not "${printable(text)}"`, {
    hint: `write a time, as in ${flag} 500ms or ${flag} 2s`,
  });
};

/**
 * `3`, or the beginning of a layer's id: four or more hex digits, of which not all of up to six are decimal.
 */
export const parseLayers: ParseFlag<WantedLayers> = (text, flag) => {
  if (/^\d{1,6}$/.test(text)) return Number(text);
  const [, id] = /^(?:sha256:)?([0-9a-f]{4,64})$/.exec(text.toLowerCase()) ?? [];
  if (id !== undefined) return id;
  throw new UsageError(
    `${flag} takes a number of layers or the beginning of a layer's id, not "${printable(text)}"`,
    {
      hint: `write ${flag} 3 for the first three; dlrootfs inspect IMAGE lists the layers`,
    },
  );
};

export const oneOf =
  <T extends string>(choices: readonly T[]): ParseFlag<T> =>
  (text, flag) => {
    const found = choices.find((choice) => choice === text);
    if (found !== undefined) return found;
    throw new UsageError(`${flag} takes one of ${choices.join(', ')}, not "${printable(text)}"`, {
      hint: `write one of them, as in ${flag} ${choices[0]!}`,
    });
  };

/** Parses a value of `--for`. */
export const startedBy: ParseFlag<Runtime | VirtualMachine> = (name, flag) => {
  if (name === 'firecracker')
    throw new UsageError(`${flag} does not know firecracker any more`, {
      hint: `make the disk with ${flag} qemu, and take the JSON from "Disk for Firecracker" in docs/recipes.md`,
    });
  return oneOf([...runtimes, ...virtualMachines])(name, flag);
};

/** Parses a value of `--replace`. `touched` is that of the flag without a value; users do not write it. */
export const replaceMode: ParseFlag<true | 'always'> = (text, flag) => {
  if (text === 'touched') return true;
  if (text === 'always') return text;
  throw new UsageError(`${flag} takes no value but =always, not "${printable(text)}"`, {
    hint: `write ${flag}, or ${flag}=always`,
  });
};

/** Accepts the name of an existing file or directory, in UTF-8, which the library needs. */
export const fileName: ParseFlag<string> = (text, flag) => {
  try {
    return utf8Path(text);
  } catch (error) {
    const reason = osErrorOf(error)?.text ?? reasonOf(error);
    throw new UsageError(`cannot open ${printable(text)} for ${flag}: ${reason}`);
  }
};

/** `1000:1000`, or `1000` for a user and a group of that number. */
export const parseOwner: ParseFlag<Owner> = (text, flag) => {
  const [, user = '', group = user] = /^(\d{1,10})(?::(\d{1,10}))?$/.exec(text) ?? [];
  const [uid, gid] = [parseId(user), parseId(group)];
  if (uid !== undefined && gid !== undefined) return { uid, gid };
  throw new UsageError(`${flag} takes numbers of a user and a group, not "${printable(text)}"`, {
    hint: `write ${flag} UID:GID, as in ${flag} 1000:1000`,
  });
};
