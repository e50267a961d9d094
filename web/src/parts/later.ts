/**
 * What nobody sees at the first look: a chunk of its own, so that the log is there sooner. It is
 * fetched as soon as the page has nothing else to do, and so is there before it is needed.
 */

export { default as ConfirmDialog } from './ConfirmDialog.svelte';
export { default as EntryDetail } from './EntryDetail.svelte';
export { default as KeyHelp } from './KeyHelp.svelte';
export { default as Login } from './Login.svelte';
export { default as Minimap } from './Minimap.svelte';
export { default as FilterForm } from './FilterForm.svelte';
export { default as RetryDialog } from './RetryDialog.svelte';
export { default as SourceList } from './SourceList.svelte';
export { default as StartForm } from './StartForm.svelte';
export { default as TaskDetail } from './TaskDetail.svelte';
