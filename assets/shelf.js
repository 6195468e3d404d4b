const mark = () => element.querySelectorAll('button').forEach((button) => {
  button.parentElement.setAttribute('aria-selected', String(button.dataset.slug === props.value.selected));
});
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-slug]');
  if (!button) return;
  props.value = { ...props.value, selected: button.dataset.slug };
  mark();
  trigger('select');
});
watch('value', mark);
mark();
