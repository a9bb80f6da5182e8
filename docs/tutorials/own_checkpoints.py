# %% [markdown]
# # own_checkpoints

# %%
print(1)
