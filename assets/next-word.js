// The next word while a slider moves: asks the server at most once at a time, and only for what was last wanted.
const TYPING = 300; // ms after the last key in the prompt
const KEPT = 200;
const head = h('p', { class: 'forecast', 'aria-live': 'polite' });
const bars = h('ol', { class: 'chances' });
const legend = h('p', { class: 'chances-legend' }, h('i', { class: 'untouched' }), 'untouched model ', h('i', { class: 'steered' }), 'your setting');
element.replaceChildren(head, bars, legend);
legend.hidden = true;
const rows = new Map();
let wanted = null;
let asking = false;
let answered = false;
const known = new Map(); // request -> answer
let last = { multipliers: {} };
let turns = [];

const field = (id) => document.querySelector(`#${id} textarea`)?.value ?? '';
const row = (chance) => {
  const untouched = h('i', { class: 'untouched' });
  const steered = h('i', { class: 'steered' });
  const number = h('small');
  const node = h('li', {}, h('span', { class: 'pair' }, untouched, steered), h('b', {}, chance.label), number);
  return { node, untouched, steered, number };
};
const draw = (found) => {
  head.textContent = found.forecast;
  const most = Math.max(0.1, ...found.chances.map((chance) => Math.max(chance.untouched, chance.steered)));
  const kept = new Set(found.chances.map((chance) => chance.text));
  for (const [text, parts] of rows) if (!kept.has(text)) { parts.node.remove(); rows.delete(text); }
  found.chances.forEach((chance, place) => {
    if (!rows.has(chance.text)) rows.set(chance.text, row(chance));
    const parts = rows.get(chance.text);
    if (bars.children[place] !== parts.node) bars.insertBefore(parts.node, bars.children[place] || null);
    parts.untouched.style.setProperty('--share', chance.untouched / most);
    parts.steered.style.setProperty('--share', chance.steered / most);
    parts.number.textContent = percent(chance.steered);
    parts.node.title = `${chance.label}: untouched ${percent(chance.untouched)}, your setting ${percent(chance.steered)}`;
  });
  legend.hidden = bars.hidden = !found.chances.length;
};
const show = (request, found) => {
  draw(found);
  element.dataset.shows = JSON.stringify(request.multipliers);
};
const ask = async () => {
  if (asking) return;
  asking = true;
  while (wanted) {
    const request = wanted;
    wanted = null;
    const key = JSON.stringify(request);
    try {
      const found = await server.next_word(key);
      known.set(key, found);
      if (known.size > KEPT) known.delete(known.keys().next().value); // the oldest
      if (!answered) show(request, found);
      answered = false;
    } catch (error) {
      head.textContent = 'The preview did not answer; it will with the next move.';
    }
  }
  asking = false;
};
const want = () => {
  const prompt = field('prompt');
  if (!prompt.trim()) {
    wanted = null;
    answered = asking;
    draw({ forecast: 'Write a prompt to see the first word change.', chances: [] });
    return;
  }
  wanted = {
    prompt, system: field('system'), multipliers: last.multipliers, turns,
    full: Boolean(document.querySelector('#full-weights input')?.checked),
  };
  const found = known.get(JSON.stringify(wanted)); // a slider comes by the same places again
  answered = Boolean(found) && asking; // what is under way is stale
  if (found) { show(wanted, found); wanted = null; } else ask();
};
let waiting = null;
const soon = (delay) => { clearTimeout(waiting); waiting = setTimeout(want, delay); };
hear('drag', (detail) => {
  last = detail;
  if (detail.live) want(); else soon(50); // what came with it from the server has not been drawn yet
});
hear('shelf', () => known.clear()); // a vector may have changed under its name
hear('prompt', () => soon(TYPING));
hear('turns', (now) => { turns = now; soon(50); });
const begin = () => (field('prompt') ? tell('who') : setTimeout(begin, 100)); // the sliders answer with a `drag`
begin();
