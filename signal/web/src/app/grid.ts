// Where tiles go: pure.

export interface Box {
  readonly width: number;
  readonly height: number;
}

export interface GridFit {
  readonly columns: number;
  readonly tileWidth: number;
  readonly tileHeight: number;
}

const ratio = 16 / 9;

/** The arrangement in which n tiles of 16:9 (or, on narrow screens, rather squarer ones) are largest. */
export function bestGrid(n: number, box: Box, gap: number): GridFit {
  let best: GridFit = { columns: 1, tileWidth: 0, tileHeight: 0 };
  for (let columns = 1; columns <= n; columns++) {
    const rows = Math.ceil(n / columns);
    const cellWidth = (box.width - gap * (columns - 1)) / columns;
    const cellHeight = (box.height - gap * (rows - 1)) / rows;
    if (cellWidth <= 0 || cellHeight <= 0) continue;
    const tile = fitted(cellWidth, cellHeight, box.width < narrowBox ? 4 / 5 : 4 / 3);
    if (tile.width * tile.height > best.tileWidth * best.tileHeight) {
      best = { columns, tileWidth: Math.floor(tile.width), tileHeight: Math.floor(tile.height) };
    }
  }
  return best;
}

// Beneath this width tiles may be as narrow as 4:5, so that a phone held upright is not mostly empty.
const narrowBox = 600;

function fitted(cellWidth: number, cellHeight: number, narrowest: number): Box {
  const cellRatio = cellWidth / cellHeight;
  if (cellRatio > ratio) return { width: cellHeight * ratio, height: cellHeight };
  if (cellRatio < narrowest) return { width: cellWidth, height: cellWidth / narrowest };
  return { width: cellWidth, height: cellHeight };
}

/** How many tiles a page holds before they become too small to recognise anybody. */
export function tilesPerPage(box: Box): number {
  const small = box.width < 600;
  const smallest = small ? { width: 150, height: 120 } : { width: 220, height: 124 };
  const columns = Math.max(1, Math.floor(box.width / smallest.width));
  const rows = Math.max(1, Math.floor(box.height / smallest.height));
  return Math.min(columns * rows, small ? 8 : 25);
}

/**
 * The order of tiles over pages: as given, but those who speak and are on a later page take the place of the silent
 * at the end of the first.
 */
export function promoteSpeakers(ids: readonly string[], speaking: ReadonlySet<string>, perPage: number): string[] {
  const ordered = [...ids];
  for (const id of ids.slice(perPage)) {
    if (!speaking.has(id)) continue;
    const at = ordered.indexOf(id);
    let silent = perPage - 1;
    while (silent > 0 && speaking.has(ordered[silent]!)) silent--;
    if (silent <= 0) break;
    [ordered[silent], ordered[at]] = [ordered[at]!, ordered[silent]!];
  }
  return ordered;
}
