// Lets a reader filter cards by topic, device and cost. The choice stands in the address, so that Back restores it.
// Without JavaScript all cards are shown, and there is no filter.

const COSTS = [
  [60, "up to 1 minute"],
  [120, "1 to 2 minutes"],
  [Infinity, "more than 2 minutes"],
];
const GROUPS = {
  topic: { name: "Topic", value: (text) => text },
  device: { name: "Measured on", value: (text) => text },
  cost: { name: "Runs for", value: (text) => COSTS.find(([limit]) => parseFloat(text) <= limit)[1] },
};

function valuesOf(card, group) {
  const tags = [...card.querySelectorAll(`.recipe-${group}`)];
  return tags.map((tag) => GROUPS[group].value(tag.textContent));
}

function choiceFromAddress() {
  const fields = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(Object.keys(GROUPS).map((group) => [group, fields.get(group)]));
}

function addFilter(grid) {
  // The columns hide with their cards.
  const cards = [...grid.querySelectorAll(".sd-col")];
  const choice = choiceFromAddress();
  const buttons = [];
  const status = document.createElement("p");
  status.className = "recipe-filter-status";
  status.setAttribute("role", "status");

  function show() {
    const chosen = Object.keys(GROUPS).filter((group) => choice[group]);
    let count = 0;
    for (const card of cards) {
      card.hidden = !chosen.every((group) => valuesOf(card, group).includes(choice[group]));
      count += card.hidden ? 0 : 1;
    }
    for (const { button, group, value } of buttons) {
      button.setAttribute("aria-pressed", String(choice[group] === value));
    }
    status.textContent = `${count} of ${cards.length} pages`;
    return new URLSearchParams(chosen.map((group) => [group, choice[group]])).toString();
  }

  const filter = document.createElement("div");
  filter.className = "recipe-filter";
  for (const group of Object.keys(GROUPS)) {
    const found = new Set(cards.flatMap((card) => valuesOf(card, group)));
    const order = group === "cost" ? COSTS.map(([, text]) => text) : [...found].sort();
    const values = order.filter((value) => found.has(value));
    if (values.length < 2) continue; // A filter that all cards pass is none.
    const row = document.createElement("div");
    row.setAttribute("role", "group");
    row.setAttribute("aria-label", GROUPS[group].name);
    const name = document.createElement("span");
    name.className = "recipe-filter-name";
    name.textContent = GROUPS[group].name;
    row.append(name);
    for (const value of values) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = value;
      button.addEventListener("click", () => {
        choice[group] = choice[group] === value ? null : value;
        history.replaceState(null, "", `#${show()}`);
      });
      buttons.push({ button, group, value });
      row.append(button);
    }
    filter.append(row);
  }
  if (buttons.length === 0) return;
  filter.append(status);
  grid.before(filter);
  show();
}

document.querySelectorAll(".recipe-cards").forEach(addFilter);
