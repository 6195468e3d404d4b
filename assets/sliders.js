// The sliders. While one is dragged, the page's other scripts get `sliderMoved`; the event `release` goes to the server
// when a drag or a row of arrow keys ends.
const KEYS_END = 350; // ms after the last arrow key: several presses in a row are one change
const root = h('div', { class: 'slider-panel' });
element.replaceChildren(root);
let pointer = false;
let pending = null;
let unit = 'none'; // in which the multipliers are told, too
let typing = null; // the number box that somebody is writing in: nothing else may write there meanwhile

const copy = () => JSON.parse(JSON.stringify(props.value));
const clamp = (number) => {
  const range = props.value.range;
  return Number.isFinite(number) ? Math.max(-range, Math.min(range, number)) : 0;
};
const moved = () => props.value.sliders.filter((s) => s.multiplier !== 0);
const setting = () => Object.fromEntries(moved().map((s) => [s.slug, s.multiplier]));
const announce = (live) => emit(EVENTS.sliderMoved, {
  live, active: props.value.active, multipliers: setting(), generation: props.value.generation, ticket: props.value.ticket,
});
const setValue = (value) => {
  clearTimeout(pending);
  props.value = value;
  render();
};
const release = (value) => {
  setValue(value);
  announce(false);
  trigger('release');
};
const move = (slug, number) => {
  const slider = props.value.sliders.find((s) => s.slug === slug);
  if (!slider) return;
  slider.multiplier = number;
  props.value.active = slug;
  drawSlider(root.querySelector(`[data-row="${CSS.escape(slug)}"]`), slider);
  announce(true);
};

const UNITS = {
  dose: { label: 'dose', words: (s) => (s.dose ? `${(100 * Math.abs(s.multiplier) * s.dose).toFixed(1)} % of the stream` : 'dose not known') },
  kl: { label: 'KL units', words: (s) => (s.kl ? `${(Math.abs(s.multiplier) * s.kl).toFixed(2)} KL units` : 'KL not measured') },
};
const drawSlider = (row, slider) => {
  const range = row.querySelector('.slider-range');
  const number = row.querySelector('.slider-number');
  if (Number(range.value) !== slider.multiplier) range.value = slider.multiplier;
  if (typing !== number && Number(number.value || NaN) !== slider.multiplier) number.value = slider.multiplier;
  // Beyond its ends only the number box goes: the slider then reaches as far as what was written there.
  const [low, high] = [Math.min(slider.low, slider.multiplier), Math.max(slider.high, slider.multiplier)];
  if (Number(range.min) !== low || Number(range.max) !== high) {
    range.min = low;
    range.max = high;
    range.value = slider.multiplier;
  }
  row.style.setProperty('--share', (slider.multiplier - low) / (high - low));
  row.style.setProperty('--zero', -low / (high - low));
  row.querySelector('.slider-beyond').hidden = slider.low <= slider.multiplier && slider.multiplier <= slider.high;
  const words = unit === 'none' ? '' : UNITS[unit].words(slider);
  row.querySelector('.slider-unit').textContent = slider.multiplier ? words : '';
  range.setAttribute('aria-valuetext', slider.multiplier ? `${signed(slider.multiplier)}` : 'off');
};
const sliderRow = (slider) => {
  const { range, step } = props.value;
  const limits = { min: -range, max: range, step, value: slider.multiplier, 'data-slug': slider.slug };
  const measured = slider.measured ? ` Sound from ${signed(slider.low)} to ${signed(slider.high)}, as measured; type a number to go past it.` : '';
  return h('div', { class: 'slider', 'data-row': slider.slug },
    h('div', { class: 'slider-head' },
      h('label', { for: `slider-${slider.slug}`, title: slider.behavior }, slider.name),
      h('small', { class: 'slider-unit' }),
      h('input', { ...limits, class: 'slider-number', type: 'number', id: `number-${slider.slug}`, 'aria-label': `${slider.name}: multiplier as a number` })),
    h('input', { ...limits, min: slider.low, max: slider.high, class: 'slider-range', type: 'range', id: `slider-${slider.slug}`,
      'aria-label': `${slider.name}: multiplier`, 'aria-describedby': `hint-${slider.slug}` }),
    h('p', { class: 'slider-hint', id: `hint-${slider.slug}`, title: measured.trim() },
      slider.made_for ? `made for ${slider.made_for}: ${slider.behavior}` : slider.behavior),
    h('p', { class: 'slider-hint slider-beyond', hidden: true },
      `Beyond ${signed(slider.low)} to ${signed(slider.high)}, where the text stayed sound when it was measured.`));
};
// Vectors made for other models, folded: those of the same size have sliders too, with effects unknown.
let unfolded = false;
const foreign = (sliders, others) => {
  const guests = sliders.filter((s) => s.made_for);
  const count = guests.length + others.length;
  if (!count) return [];
  const open = unfolded || guests.some((s) => s.multiplier !== 0);
  return [h('details', { class: 'foreign', open, ontoggle: (event) => { unfolded = event.target.open; } },
    h('summary', {}, `${count} ${count === 1 ? 'vector' : 'vectors'} made for other models`),
    guests.length ? h('p', { class: 'slider-hint' }, 'Of the same size as this model: they can be added, with effects unknown.') : null,
    guests.map(sliderRow),
    others.length ? h('ul', {}, others.map((o) => h('li', {}, h('b', {}, o.name), h('small', {}, `made for ${o.made_for}`)))) : null)];
};
let drawnShape = '';
const render = () => {
  const { sliders, others, pins, hidden } = props.value;
  const shape = JSON.stringify([sliders.map((s) => [s.slug, s.name, s.behavior, s.made_for, s.low, s.high]), others, pins, hidden]);
  if (shape !== drawnShape) {
    const focused = document.activeElement && root.contains(document.activeElement) && document.activeElement.id;
    drawnShape = shape;
    root.replaceChildren(
      ...sliders.filter((s) => !s.made_for).map(sliderRow),
      ...foreign(sliders, others),
      ...(sliders.length ? [h('div', { class: 'slider-buttons' },
        h('button', { type: 'button', id: 'zero-all', 'data-act': 'zero', title: 'Set every slider to 0' }, 'Zero all'),
        h('button', { type: 'button', id: 'pin-setting', 'data-act': 'pin', title: 'Keep the present setting as one more column' }, 'Pin this setting'),
        h('label', { class: 'unit-choice', title: 'Dose: length of what is added, as a share of the residual stream. KL units: 1 is where the 95th percentile of the KL divergence is 1 nat, by which all vectors compare.' }, 'also in ',
          h('select', { id: 'slider-unit' }, h('option', { value: 'none' }, 'no other unit'),
            Object.entries(UNITS).map(([value, { label }]) => h('option', { value, selected: value === unit }, label)))))] : []),
      ...(pins.length || hidden.length ? [h('ul', { class: 'pins', 'aria-label': 'Pinned settings' },
        pins.map((pin, i) => h('li', {}, h('span', {}, pin.name || pin.title),
          h('button', { type: 'button', 'data-unpin': i, 'aria-label': `Remove the pin ${pin.name || pin.title}` }, '\u00d7'))),
        hidden.map((id) => h('li', { class: 'hidden-column' }, h('span', {}, `hidden: ${id}`),
          h('button', { type: 'button', 'data-show': id, 'aria-label': `Show the column ${id} again` }, 'show'))))] : []),
    );
    if (focused) document.getElementById(focused)?.focus();
  }
  for (const slider of sliders) drawSlider(root.querySelector(`[data-row="${CSS.escape(slider.slug)}"]`), slider);
};

root.addEventListener('pointerdown', (event) => { pointer = event.target.matches('.slider-range'); });
// The browser fires the `change` of a drag after the pointer is up.
for (const end of ['pointerup', 'pointercancel']) addEventListener(end, () => setTimeout(() => { pointer = false; }));
root.addEventListener('input', (event) => {
  if (event.target.matches('.slider-range')) move(event.target.dataset.slug, clamp(parseFloat(event.target.value)));
  else if (event.target.matches('.slider-number')) typing = event.target;
});
root.addEventListener('focusout', (event) => { if (event.target === typing) typing = null; });
root.addEventListener('change', (event) => {
  if (event.target.id === 'slider-unit') {
    unit = event.target.value;
    render();
    return;
  }
  if (!event.target.matches('.slider-range, .slider-number')) return;
  const number = clamp(parseFloat(event.target.value));
  if (event.target === typing) typing = null;
  event.target.value = number;
  move(event.target.dataset.slug, number);
  clearTimeout(pending);
  pending = setTimeout(() => release(copy()), pointer || event.target.matches('.slider-number') ? 0 : KEYS_END);
});
root.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || !event.target.matches('.slider-range')) return;
  release(copy());
});
const sorted = (multipliers) => JSON.stringify(Object.entries(multipliers).sort());
const canPin = (value, pinned) => Object.keys(pinned).length > 0 && value.pins.length < value.max_pins
  && !value.pins.some((p) => sorted(p.setting) === sorted(pinned));
const pin = async () => {
  const pinned = setting();
  if (!canPin(props.value, pinned)) return;
  const title = await server.pin_title(JSON.stringify({ setting: pinned, ticket: props.value.ticket })); // one rule for all titles, the server's
  const value = copy(); // as it is by now: there may have been a second click
  if (!title || !canPin(value, pinned)) return;
  value.pins.push({ title, setting: pinned, name: '' });
  release(value);
};
root.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.act === 'pin') { pin(); return; }
  const value = copy();
  if (button.dataset.act === 'zero') {
    value.sliders.forEach((s) => { s.multiplier = 0; });
  } else if (button.dataset.unpin !== undefined) {
    value.pins.splice(Number(button.dataset.unpin), 1);
  } else if (button.dataset.show !== undefined) {
    value.hidden = value.hidden.filter((id) => id !== button.dataset.show);
  } else return;
  release(value);
});
// A column's own buttons.
listen(EVENTS.columnRemoved, (id) => {
  const value = copy();
  const number = id.startsWith('pin:') ? Number(id.slice(4)) : -1;
  if (number >= 0) value.pins.splice(number, 1);
  else if (!value.hidden.includes(id)) value.hidden.push(id);
  release(value);
});
listen(EVENTS.pinRenamed, ({ id, name }) => {
  const value = copy();
  const pinned = value.pins[Number(id.slice(4))];
  if (!pinned) return;
  pinned.name = name;
  setValue(value);
});
listen(EVENTS.multiplierChosen, ({ slug, multiplier }) => {
  const value = copy();
  const slider = value.sliders.find((s) => s.slug === slug);
  if (!slider) return;
  slider.multiplier = multiplier;
  value.active = slug;
  release(value);
});
listen(EVENTS.slidersRequested, () => announce(false));
watch('value', () => { emit(EVENTS.shelfChanged); render(); announce(false); });
render();
announce(false);
