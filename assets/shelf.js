// The vectors on the shelf, as a list to choose from.
const list = h('ul', { class: 'shelf', role: 'listbox', 'aria-label': 'Vectors on the shelf' });
element.replaceChildren(list);
let clicks = 0;
let chosen = ''; // by the last choice
const render = () => {
  const { items, selected } = props.value;
  const focused = document.activeElement && list.contains(document.activeElement);
  list.replaceChildren(...(items.length ? items.map((item) => h('li', { role: 'option', 'aria-selected': String(item.slug === selected) },
    h('button', { type: 'button', 'data-slug': item.slug },
      h('b', {}, item.name), h('span', { class: 'tag' }, item.tag), h('small', {}, item.behavior),
      item.misfit ? h('small', { class: 'misfit' }, item.misfit) : null)))
    : [h('li', { class: 'note' }, 'The shelf is empty.')]));
  if (focused) list.querySelector('[aria-selected="true"] button')?.focus();
};
list.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-slug]');
  if (!button) return;
  clicks += 1;
  select(button.dataset.slug);
});
const select = (slug) => {
  chosen = slug;
  props.value = { ...props.value, selected: slug, clicks };
  render();
  trigger('select');
};
watch('value', () => {
  const { selected, clicks: answered } = props.value;
  if (answered === undefined) { // what an import, a deletion or its undoing selects counts as a choice
    clicks += 1;
    chosen = selected;
    props.value = { ...props.value, clicks };
    render();
  } else if (answered < clicks) select(chosen); // the answer to what was asked before the last choice: ask again
  else render();
});
render();
