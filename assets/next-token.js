// The next token while a slider moves: one request to the server at a time, and the next one for the latest place only.
const TYPING = 300; // ms after the last key in the prompt
const DRAWING = 50; // ms: what the server sent together with new sliders is in the page by then
const MOST_CACHED = 200; // answers of about 1 kB each; a slider has 25 places
const head = h('p', { class: 'forecast', 'aria-live': 'polite' });
const bars = h('ol', { class: 'chances' });
const legend = h('p', { class: 'chances-legend' }, h('i', { class: 'untouched' }), 'untouched model ', h('i', { class: 'steered' }), 'your setting');
element.replaceChildren(head, bars, legend);
legend.hidden = true;
const rows = new Map();
let pending = null; // the latest request that was not sent yet
let inFlight = false;
let outdated = false; // whether the request in flight was overtaken by what is shown
const cache = new Map(); // request as JSON -> answer
let multipliers = {};
let generation = null; // of the page's model, which the server may have changed meanwhile
let ticket = null; // tells the server whose vectors these are
let turns = [];

const field = (id) => document.querySelector(`#${id} textarea`)?.value ?? '';
const row = (chance) => {
  const untouched = h('i', { class: 'untouched' });
  const steered = h('i', { class: 'steered' });
  const number = h('small');
  const node = h('li', {}, h('span', { class: 'pair' }, untouched, steered), h('b', {}, chance.label), number);
  return { node, untouched, steered, number };
};
const draw = (answer) => {
  head.textContent = answer.forecast;
  const most = Math.max(0.1, ...answer.chances.map((chance) => Math.max(chance.untouched, chance.steered)));
  const texts = new Set(answer.chances.map((chance) => chance.text));
  for (const [text, parts] of rows) if (!texts.has(text)) { parts.node.remove(); rows.delete(text); }
  answer.chances.forEach((chance, place) => {
    if (!rows.has(chance.text)) rows.set(chance.text, row(chance));
    const parts = rows.get(chance.text);
    if (bars.children[place] !== parts.node) bars.insertBefore(parts.node, bars.children[place] || null);
    parts.untouched.style.setProperty('--share', chance.untouched / most);
    parts.steered.style.setProperty('--share', chance.steered / most);
    parts.number.textContent = percent(chance.steered);
    parts.node.title = `${chance.label}: untouched ${percent(chance.untouched)}, your setting ${percent(chance.steered)}`;
  });
  legend.hidden = bars.hidden = !answer.chances.length;
};
const show = (request, answer) => {
  draw(answer);
  element.dataset.shows = JSON.stringify(request.multipliers);
};
const fetchPending = async () => {
  if (inFlight) return;
  inFlight = true;
  while (pending) {
    const request = pending;
    pending = null;
    const key = JSON.stringify(request);
    try {
      const answer = await server.next_token(key);
      cache.set(key, answer);
      if (cache.size > MOST_CACHED) cache.delete(cache.keys().next().value); // the oldest
      if (!outdated) show(request, answer);
      outdated = false;
    } catch (error) {
      console.warn('steering: the next-token preview failed', error);
      head.textContent = 'The preview did not answer; it will with the next move.';
    }
  }
  inFlight = false;
};
const update = () => {
  const prompt = field('prompt');
  if (!prompt.trim()) {
    pending = null;
    outdated = inFlight;
    draw({ forecast: 'Write a prompt to see the first word change.', chances: [] });
    return;
  }
  const full = Boolean(document.querySelector('#full-weights input')?.checked);
  const request = { prompt, system: field('system'), multipliers, turns, full, generation, ticket };
  const answer = cache.get(JSON.stringify(request)); // a slider comes by the same places again
  outdated = Boolean(answer) && inFlight;
  pending = answer ? null : request;
  if (answer) show(request, answer); else fetchPending();
};
let timer = null;
const updateSoon = (delay) => { clearTimeout(timer); timer = setTimeout(update, delay); };
listen(EVENTS.sliderMoved, (moved) => {
  multipliers = moved.multipliers;
  ticket = moved.ticket;
  if (generation !== moved.generation) {
    generation = moved.generation;
    draw({ forecast: 'Asking the model ...', chances: [] });
  }
  if (moved.live) update(); else updateSoon(DRAWING);
});
listen(EVENTS.shelfChanged, () => cache.clear()); // a vector may have changed under its name
listen(EVENTS.promptChanged, () => updateSoon(TYPING));
listen(EVENTS.turnsChanged, (now) => { turns = now; updateSoon(DRAWING); });
const begin = () => (field('prompt') ? emit(EVENTS.slidersRequested) : setTimeout(begin, 100)); // until gradio drew the prompt
begin();
