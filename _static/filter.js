// Lets a reader filter cards by topic, device and cost. The choice stands in the address, so that Back restores it.
// The buttons are in the page; without JavaScript they are hidden, and all cards are shown.

function matches(card, { group, value }) {
  const texts = [...card.querySelectorAll(`.recipe-${group}`)].map((tag) => tag.textContent);
  if (group !== "cost") return texts.includes(value);
  const [above, upTo] = value.split(" ").map(Number);
  return texts.some((text) => above < parseFloat(text) && parseFloat(text) <= upTo);
}

function start(filter) {
  // The columns of the grid hide with their cards.
  const cards = [...filter.parentElement.querySelectorAll(".recipe-cards .sd-col")];
  const buttons = [...filter.querySelectorAll("button")];
  const status = filter.querySelector("[role=status]");
  const choice = new URLSearchParams(location.hash.slice(1));

  function show() {
    const chosen = buttons.filter(({ dataset }) => choice.get(dataset.group) === dataset.value);
    for (const button of buttons) button.setAttribute("aria-pressed", String(chosen.includes(button)));
    for (const card of cards) card.hidden = !chosen.every(({ dataset }) => matches(card, dataset));
    status.textContent = `${cards.filter((card) => !card.hidden).length} of ${cards.length} pages`;
  }

  for (const button of buttons) {
    button.addEventListener("click", () => {
      const { group, value } = button.dataset;
      if (choice.get(group) === value) choice.delete(group);
      else choice.set(group, value);
      history.replaceState(null, "", `#${choice}`);
      show();
    });
  }
  show();
}

document.querySelectorAll(".recipe-filter").forEach(start);
