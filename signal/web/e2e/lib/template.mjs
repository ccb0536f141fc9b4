// A template with other names for everything: no code may know "host", "speaker", "audience" or "viewer".
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Names of the roles that a walk uses, by what they do. */
export const liveEvent = { template: "live-event", host: "host", speaker: "speaker", audience: "audience", viewer: "viewer", stream: "main" };

export const playhouse = {
  template: "playhouse", host: "director", speaker: "actor", audience: "stalls", viewer: "street", stream: "matinee",
};

/** Exports live-event, renames all of it, and imports it again. */
export async function importPlayhouse(platform) {
  const original = await platform.text("template", "get", "live-event");
  const template = JSON.parse(original);
  const rename = (name) => playhouse[Object.keys(liveEvent).find((k) => k !== "template" && k !== "stream" && liveEvent[k] === name)] ?? name;
  template.name = playhouse.template;
  delete template.revision;
  for (const role of template.roles) {
    role.name = rename(role.name);
    role.title = role.name.toUpperCase();
    if (role.stageRole) role.stageRole = rename(role.stageRole);
    if (role.offStageRole) role.offStageRole = rename(role.offStageRole);
    if (role.subscribe.roles) role.subscribe.roles = role.subscribe.roles.map(rename);
    if (role.subscribe.stream) role.subscribe.stream = playhouse.stream;
  }
  for (const stream of template.streams) {
    stream.name = playhouse.stream;
    stream.roles = stream.roles.map(rename);
  }
  const folder = await mkdtemp(join(tmpdir(), "amphi-e2e-"));
  const file = join(folder, "playhouse.json");
  await writeFile(file, JSON.stringify(template));
  await platform.cli("template", "set", file);
}
