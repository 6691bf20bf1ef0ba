// As much of ELF64 little-endian as the kernel tests ask for: a shared object's own name and the names it needs.

const SHT_DYNAMIC = 6;
const DT_NEEDED = 1n;
const DT_SONAME = 14n;

export interface DynamicNames {
  soname: string | undefined;
  needed: string[];
}

function section(elf: Buffer, index: number): { type: number; link: number; offset: number; size: number } {
  const header = Number(elf.readBigUInt64LE(0x28)) + index * elf.readUInt16LE(0x3a);
  return {
    type: elf.readUInt32LE(header + 4),
    offset: Number(elf.readBigUInt64LE(header + 0x18)),
    size: Number(elf.readBigUInt64LE(header + 0x20)),
    link: elf.readUInt32LE(header + 0x28),
  };
}

export function dynamicNames(elf: Buffer): DynamicNames {
  if (elf.toString("latin1", 0, 6) !== "\x7fELF\x02\x01") throw new Error("not an ELF64 little-endian file");
  const count = elf.readUInt16LE(0x3c);
  const sections = Array.from({ length: count }, (_, index) => section(elf, index));
  const dynamic = sections.find((candidate) => candidate.type === SHT_DYNAMIC);
  const strings = dynamic && sections[dynamic.link];
  if (!dynamic || !strings) throw new Error("no dynamic section");
  const names: DynamicNames = { soname: undefined, needed: [] };
  for (let at = dynamic.offset; at < dynamic.offset + dynamic.size; at += 16) {
    const tag = elf.readBigInt64LE(at);
    const start = strings.offset + Number(elf.readBigUInt64LE(at + 8));
    if (tag === DT_SONAME) names.soname = elf.toString("latin1", start, elf.indexOf(0, start));
    if (tag === DT_NEEDED) names.needed.push(elf.toString("latin1", start, elf.indexOf(0, start)));
  }
  return names;
}
