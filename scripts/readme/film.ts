/** The screen of a terminal from a point in time. */
export interface Frame {
  /** Seconds from the start. */
  readonly at: number;
  readonly lines: readonly string[];
}

export interface FilmOptions {
  readonly columns: number;
  readonly rows: number;
  readonly title: string;
  /** Seconds that the last frame is shown before the film repeats. */
  readonly rest: number;
}

const cell = { width: 8.4, height: 18 };
const margin = { side: 16, top: 40, bottom: 14 };

/**
 * Returns an SVG that repeats the frames: they are below each other on a strip that CSS moves. Without
 * animation (in print, with reduced motion) the last frame is shown. The colours are readable on light and
 * dark pages.
 */
export function film(frames: readonly Frame[], options: FilmOptions): string {
  const { columns, rows, title, rest } = options;
  const height = rows * cell.height;
  const width = columns * cell.width;
  const total = frames.at(-1)!.at + rest;
  const names = new Map<string, string>();
  const pictures = frames.map(({ lines }, n) => {
    const uses = lines.flatMap((line, row) => {
      if (line === '') return [];
      const name = names.get(line) ?? `l${names.size}`;
      names.set(line, name);
      return `<use href="#${name}" y="${n * height + row * cell.height}"/>`;
    });
    return uses.join('');
  });
  const definitions = [...names].map(([line, name]) => {
    const kind = /^[#$] /.test(line) ? ' class="c"' : '';
    return `<text id="${name}" y="13"${kind}>${escaped(line)}</text>`;
  });
  const steps = frames.map(({ at }, n) => {
    const percent = Number(((at / total) * 100).toFixed(2));
    return `${percent}%{transform:translateY(-${n * height}px)}`;
  });
  const last = (frames.length - 1) * height;
  const whole = { width: width + 2 * margin.side, height: height + margin.top + margin.bottom };
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${whole.width}" height="${whole.height}" viewBox="0 0 ${whole.width} ${whole.height}" role="img" xml:space="preserve">
<title>${escaped(title)}</title>
<style>
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre;fill:#d5dbe3}
.c{fill:#fff;font-weight:bold}
.s{animation:play ${total.toFixed(1)}s steps(1,end) infinite}
@media (prefers-reduced-motion:reduce){.s{animation:none}}
@keyframes play{${steps.join('')}}
</style>
<defs>${definitions.join('\n')}</defs>
<rect width="${whole.width}" height="${whole.height}" rx="8" fill="#1c2128" stroke="#444c56"/>
<circle cx="20" cy="19" r="6" fill="#f0605a"/><circle cx="40" cy="19" r="6" fill="#f5bd4f"/><circle cx="60" cy="19" r="6" fill="#5fc454"/>
<svg x="${margin.side}" y="${margin.top}" width="${width}" height="${height}"><g class="s" transform="translate(0 -${last})">
${pictures.join('\n')}
</g></svg>
</svg>
`;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
