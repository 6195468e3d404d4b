// Answers side by side: cards that grow, the words that steering changed, the strip that a slider flips through.
const MARKED = Math.log(2); // a word is marked from twice, or half, its untouched probability
const FULL = Math.log(30); // and in full colour from here
const head = h('div', { class: 'answers-head' });
const grid = h('div', { class: 'answers' });
element.replaceChildren(head, grid);
const cards = new Map();
let shownMultiplier = null; // the strip shows the stop nearest to it; null: where its slider is
let drawnHead = ''; // what stands above the cards, as JSON

const span = ([text, untouched, steered]) => {
  const ratio = Math.log(Math.max(steered, 1e-9) / Math.max(untouched, 1e-9));
  const strength = Math.min(1, Math.abs(ratio) / FULL);
  const marked = Math.abs(ratio) >= MARKED;
  return h('span', {
    class: marked ? (ratio > 0 ? 'raised' : 'lowered') : null,
    style: marked ? `--by: ${strength.toFixed(2)}` : null,
    title: `untouched model ${percent(untouched)}, steered ${percent(steered)}`,
  }, text);
};
const write = (place, text, pieces) => {
  const drawn = place.pieces || [];
  const same = pieces && drawn.length <= pieces.length && drawn.length
    && drawn.every((piece, i) => piece[0] === pieces[i][0] && piece[2] === pieces[i][2]);
  if (pieces && pieces.map((piece) => piece[0]).join('') === text) {
    if (!same) place.replaceChildren();
    place.append(...pieces.slice(same ? drawn.length : 0).map(span));
    place.pieces = pieces;
  } else if (place.textContent !== text || drawn.length) {
    place.textContent = text;
    place.pieces = null;
  }
};

const rename = (id, title) => {
  const name = title.textContent.trim().slice(0, 60);
  title.contentEditable = 'false';
  props.value = { ...props.value, columns: props.value.columns.map((c) => (c.id === id && name ? { ...c, title: name } : c)) };
  render();
  emit(EVENTS.pinRenamed, { id, name });
};
const card = (id) => {
  const title = h('h3', {});
  const buttons = h('span', { class: 'reply-buttons' });
  const thread = h('div', { class: 'thread' });
  const answer = h('div', { class: 'answer' });
  const ticks = h('div', { class: 'ticks' });
  const warning = h('p', { class: 'warning' });
  const foot = h('footer');
  const node = h('article', { class: 'reply' }, h('div', { class: 'reply-head' }, title, buttons), ticks, thread, answer, warning, foot);
  title.addEventListener('blur', () => { if (title.isContentEditable) rename(id, title); });
  title.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' || event.key === 'Escape') { event.preventDefault(); title.blur(); }
  });
  return { node, title, buttons, thread, answer, ticks, warning, foot };
};
const drawCard = (parts, column, turns) => {
  const { node, title, buttons, thread, answer, warning, foot } = parts;
  node.className = `reply ${column.kind}${column.writing ? ' writing' : ''}${column.warning ? ' broken' : ''}`;
  node.setAttribute('aria-label', `Answer: ${column.title}`);
  node.setAttribute('aria-busy', String(Boolean(column.writing)));
  if (!title.isContentEditable && title.textContent !== column.title) title.textContent = column.title;
  const shape = JSON.stringify([column.id, column.kind]);
  if (buttons.dataset.shape !== shape) {
    buttons.dataset.shape = shape;
    buttons.replaceChildren(...[
      column.kind === 'pin' && h('button', { type: 'button', title: 'Rename', 'aria-label': 'Rename this column', onclick: () => {
        title.contentEditable = 'plaintext-only';
        title.focus();
        getSelection().selectAllChildren(title);
      } }, '\u270e'),
      (column.kind === 'pin' || ['baseline', 'setting', 'opposite'].includes(column.id)) && h('button', { type: 'button', title: 'Remove', 'aria-label': `Remove the column ${column.title}`,
        onclick: (event) => { event.currentTarget.disabled = true; emit(EVENTS.columnRemoved, column.id); } }, '\u00d7'),
    ].filter(Boolean));
  }
  const past = turns.map((turn) => [turn.user, turn.answers[column.id] ?? turn.answers.setting ?? turn.answers.baseline ?? '']);
  const talk = JSON.stringify([past, past.length && props.value.asked]);
  if (thread.dataset.talk !== talk) {
    thread.dataset.talk = talk;
    thread.replaceChildren(...past.flatMap(([user, text]) => [h('p', { class: 'asked' }, user), h('p', { class: 'said' }, text)]));
    if (past.length) thread.append(h('p', { class: 'asked' }, props.value.asked || ''));
  }
  write(answer, column.text, props.value.marks ? column.pieces : null);
  warning.textContent = column.warning || '';
  warning.hidden = !column.warning;
  foot.textContent = column.foot;
  foot.title = column.foot_hint || '';
};

// The strip: whole answers for the active slider's range, to flip through without a request to the server.
const nearest = (strip, multiplier) => strip.stops.reduce((best, stop) => (
  Math.abs(stop.multiplier - multiplier) < Math.abs(best.multiplier - multiplier) ? stop : best), strip.stops[0]);
const drawStrip = (parts, strip, turns) => {
  const stop = nearest(strip, shownMultiplier ?? strip.multiplier);
  const ready = strip.stops.filter((s) => s.done).length;
  drawCard(parts, {
    id: 'strip', kind: 'strip', title: stop.title, text: stop.text, pieces: stop.pieces,
    warning: stop.warning, writing: !stop.done && !strip.ended, foot_hint: stop.foot_hint,
    foot: ready < strip.stops.length && !strip.ended ? `preparing the whole range: ${ready} of ${strip.stops.length} ready`
      : 'drag the slider, or choose a strength above: whole answers at once',
  }, turns);
  const shape = JSON.stringify(strip.stops.map((s) => [s.multiplier, Boolean(s.text), Boolean(s.warning)]));
  if (parts.ticks.dataset.shape !== shape) {
    parts.ticks.dataset.shape = shape;
    parts.ticks.setAttribute('role', 'group');
    parts.ticks.setAttribute('aria-label', `Strengths of ${strip.name}`);
    parts.ticks.replaceChildren(...strip.stops.map((s) => h('button', {
      type: 'button', 'data-stop': s.multiplier, class: s.warning ? 'broken' : null, disabled: !s.text,
      title: s.warning || s.title,
      onclick: () => { shownMultiplier = s.multiplier; render(); },
      ondblclick: () => emit(EVENTS.multiplierChosen, { slug: strip.slug, multiplier: s.multiplier }),
    }, signed(s.multiplier))));
  }
  for (const tick of parts.ticks.children) {
    tick.setAttribute('aria-pressed', String(Number(tick.dataset.stop) === stop.multiplier));
  }
};

const render = () => {
  const { columns, note, problem, strip, turns = [], marks } = props.value;
  const legend = marks && columns.some((column) => column.pieces);
  const top = JSON.stringify([problem, note, turns, legend]);
  if (top !== drawnHead) head.replaceChildren(...[ // a button must not be changed under the finger that presses it
    problem && h('p', { class: 'problem', role: 'alert' }, problem),
    note && h('p', { class: 'note' }, note),
    turns.length > 0 && h('ol', { class: 'turns', 'aria-label': 'The conversation so far' }, turns.map((turn, i) => h('li', {},
      h('span', {}, turn.user), h('button', { type: 'button', title: 'Change this and go on from here',
        'aria-label': `Edit turn ${i + 1}`, onclick: () => { props.value = { ...props.value, edit: i }; trigger('edit'); } }, 'edit')))),
    legend && h('p', { class: 'legend' },
      h('span', { class: 'raised', style: '--by: .8' }, 'likelier'), ' and ',
      h('span', { class: 'lowered', style: '--by: .8' }, 'less likely'), ' through steering than in the untouched model; point at a word for the figures.'),
  ].filter(Boolean));
  drawnHead = top;
  const all = strip && columns.length ? [...columns, { id: 'strip' }] : columns;
  const ids = new Set(all.map((column) => column.id));
  grid.querySelectorAll('.reply-buttons button:disabled').forEach((button) => { button.disabled = false; });
  for (const [id, parts] of cards) if (!ids.has(id)) { parts.node.remove(); cards.delete(id); }
  all.forEach((column, place) => {
    if (!cards.has(column.id)) cards.set(column.id, card(column.id));
    const parts = cards.get(column.id);
    if (grid.children[place] !== parts.node) grid.insertBefore(parts.node, grid.children[place] || null);
    if (column.id === 'strip') drawStrip(parts, strip, turns);
    else drawCard(parts, column, turns);
  });
};
listen(EVENTS.sliderMoved, ({ active, multipliers }) => {
  const { strip } = props.value;
  if (!strip || strip.slug !== active) return;
  const multiplier = multipliers[active] || 0;
  if (multiplier === shownMultiplier) return;
  shownMultiplier = multiplier;
  render();
});
let stripKey = null;
let sentTurns = '[]';
watch('value', () => {
  const turns = props.value.turns || [];
  if (JSON.stringify(turns) !== sentTurns) { sentTurns = JSON.stringify(turns); emit(EVENTS.turnsChanged, turns); }
  const key = props.value.strip && props.value.strip.key;
  if (key !== stripKey) { stripKey = key; shownMultiplier = null; }
  render();
});
render();
