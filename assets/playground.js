// Keys for the whole page: Esc stops. Hints that were put away stay away.
() => {
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && !event.defaultPrevented) document.querySelector('#stop')?.click();
  });
  const hints = document.querySelector('#hints');
  if (hints && localStorage.getItem('steering-hints') === 'seen') hints.style.display = 'none';
}
